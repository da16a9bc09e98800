"""Records: frozen dataclasses to everybody who looks, and quicker to define."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import pytest

from chatsdk.core.record import OFTEN, Record, record

T = TypeVar("T")


@record(frozen=True, slots=True)
class Point(Record):
    """A record; pickled, so it has to be found by its name."""

    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)
    more: Mapping[str, int] = field(default_factory=dict, hash=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Plain:
    """The same as `dataclass` makes it."""

    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)
    more: Mapping[str, int] = field(default_factory=dict, hash=False, kw_only=True)


@record(frozen=True, slots=True)
class Other(Record):
    """Looks like a Point, and is something else."""

    x: int
    y: int = 0


@record(frozen=True, kw_only=True)
class Open(Record, Generic[T]):
    """Without slots, with a parameter."""

    value: T


BOTH: tuple[Any, ...] = (Point, Plain)


def test_records_are_equal_by_the_fields_that_are_compared() -> None:
    """As those of a dataclass, and never to another class."""
    for cls in BOTH:
        assert cls(1, 2, "a") == cls(1, 2, "b")
        assert cls(1, 2) != cls(1, 3)
        assert cls(1, 2) != (1, 2)
    assert Point(1, 2) != Other(1, 2)


def test_equal_records_have_one_hash() -> None:
    """So they can be members of sets, and fields that are not compared do not part them."""
    assert {Point(1, 2, "a"), Point(1, 2, "b"), Point(1, 3)} == {Point(1, 2), Point(1, 3)}
    assert hash(Point(1, more={"a": 1})) == hash(Point(1))


def test_a_record_shows_itself_as_a_dataclass_does() -> None:
    """With all fields but those that are not to be shown."""
    assert repr(Point(1, 2, "a", "s")) == repr(Plain(1, 2, "a", "s")).replace("Plain", "Point")
    assert "secret" not in repr(Point(1))


def test_records_take_the_arguments_of_a_dataclass() -> None:
    """Defaults, factories and keywords; what does not fit is a TypeError, for the first object and for the next."""
    for cls in BOTH:
        assert (cls(1).y, cls(x=1, y=2).y, cls(1, more={"a": 1}).more) == (0, 2, {"a": 1})
        assert cls(1).more is not cls(1).more
        for wrong in ({}, {"x": 1, "z": 1}):
            with pytest.raises(TypeError, match=r"__init__\(\)"):
                cls(**wrong)
        with pytest.raises(TypeError):
            cls(1, 2, "", "", {})
        with pytest.raises(TypeError, match="multiple values"):
            cls(1, x=1)
    assert Open(value=1).value == 1
    with pytest.raises(TypeError):
        Open(1)  # type: ignore[call-arg]


def test_a_record_that_is_made_often_stays_what_it_is() -> None:
    """Its `__init__` is another one then, and does the same."""

    @record(frozen=True, slots=True)
    class Often(Record):
        x: int
        more: list[int] = field(default_factory=list)
        last: int = field(default=7, kw_only=True)

    before = Often.__init__
    made = [Often(number, last=number) for number in range(2 * OFTEN)]
    assert Often.__init__ is not before
    assert [(one.x, one.more, one.last) for one in made] == [(number, [], number) for number in range(2 * OFTEN)]
    assert made[0].more is not made[-1].more
    assert replace(made[0], x=1) == replace(made[-1], x=1, last=0)
    assert Often(5).last == 7
    for wrong in ({}, {"x": 1, "z": 1}):
        with pytest.raises(TypeError, match=r"__init__\(\)"):
            Often(**wrong)  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        made[-1].x = 2  # type: ignore[misc]


@pytest.mark.parametrize("made", [Point(1), Open(value=1)])
def test_records_do_not_change(made: Any) -> None:
    """Neither a field nor anything else can be set or deleted."""
    for name in ("x", "value", "nothing"):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 2)
        with pytest.raises(FrozenInstanceError):
            delattr(made, name)


def test_records_are_copied_replaced_and_pickled() -> None:
    """They go wherever a dataclass goes, also one that holds another."""
    point = Point(1, 2, "a", more={"b": 3})
    for one in (point, Open(value=point)):
        assert is_dataclass(one)
        assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    assert replace(point, y=5) == Point(1, 5, more={"b": 3})
    assert [each.name for each in fields(Point)] == ["x", "y", "note", "secret", "more"]
    match point:
        case Point(1, y):
            assert y == 2
        case _:
            pytest.fail("its fields are not matched by their places")


def test_a_plugin_may_build_upon_a_record() -> None:
    """A frozen dataclass below one has the fields of both; one that could change is refused, as below any other."""

    @dataclass(frozen=True)
    class Below(Other):
        z: int = 3

    assert (Below(1).x, Below(1, 2).y, Below(1).z) == (1, 2, 3)
    assert Below(1) != Other(1)
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):

        @dataclass
        class Changing(Other):  # type: ignore[misc]
            z: int = 3


def test_a_plain_class_below_a_record_is_one() -> None:
    """It takes the same arguments, whichever of the two is used first."""

    class Named(Other):
        __slots__ = ()

    assert (Named(1, 2).y, Other(3).x, Named(4).x) == (2, 3, 4)
