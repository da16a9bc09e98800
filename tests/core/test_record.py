"""Records: dataclasses that share what `dataclass` would write for each of them anew."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field, replace

from chatsdk.core.record import Record


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Point(Record):
    """A record; pickled, so it has to be found by its name."""

    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Plain:
    """The same without `Record`."""

    x: int
    y: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Other(Record):
    """Looks the same, and is something else."""

    x: int
    y: int = 0


def test_records_are_equal_by_the_fields_that_are_compared() -> None:
    """As those of a plain dataclass, and never to another class."""
    for cls in (Point, Plain):
        assert cls(1, 2, "a") == cls(1, 2, "b")
        assert cls(1, 2) != cls(1, 3)
        assert cls(1, 2) != (1, 2)
    assert Point(1, 2) != Other(1, 2)


def test_equal_records_have_one_hash() -> None:
    """So they can be members of sets, and fields that are not compared do not part them."""
    assert {Point(1, 2, "a"), Point(1, 2, "b"), Point(1, 3)} == {Point(1, 2), Point(1, 3)}


def test_a_record_shows_itself_as_a_dataclass_does() -> None:
    """With all fields but those that are not to be shown."""
    assert repr(Point(1, 2, "a", "s")) == repr(Plain(1, 2, "a", "s")).replace("Plain", "Point")
    assert "secret" not in repr(Point(1))


def test_records_are_copied_replaced_and_pickled() -> None:
    """They go wherever a dataclass goes."""
    point = Point(1, 2, "a")
    assert copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point
    assert replace(point, y=5) == Point(1, 5)
