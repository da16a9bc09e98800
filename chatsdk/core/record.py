"""Frozen dataclasses that are quick to define.

`dataclass` writes and compiles six methods for each class. Half of them differ in nothing but the names of the fields,
and a process that sends one message uses half of the classes not at all and the others a few times: together that took
a sixth of its time. A class that is decorated with `record` and has `Record` as a base is a frozen dataclass to
everybody who looks (type checkers, `fields`, `replace`, `match`, pickle, dataclasses below it). But what all have in
common is written once, and only a class that is used often gets an `__init__` as `dataclass` writes it.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any

__all__ = ["Record", "record"]

OFTEN = 50
"""Objects of a class after which it gets an `__init__` of its own: that takes as long as these spare."""

_set = object.__setattr__


class Record:
    """Base of records: equal, hashed and shown by their fields."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, each.name) == getattr(other, each.name) for each in _fields(self) if each.compare)

    def __hash__(self) -> int:
        hashed = (each for each in _fields(self) if (each.compare if each.hash is None else each.hash))
        return hash(tuple(getattr(self, each.name) for each in hashed))

    def __repr__(self) -> str:
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in _fields(self) if each.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    if not TYPE_CHECKING:  # a checker would allow any argument, and any attribute of a class with __setattr__

        def __init__(self, *args, **kwargs):
            cls = type(self)
            plan = cls.__dict__.get("_plan") or _make_plan(cls)
            plan.left -= 1
            if plan.left < 0:
                cls.__init__ = _make_init(cls)
            if len(args) > len(plan.positional):
                raise _wrong(cls, f"takes {len(plan.positional)} positional arguments, not {len(args)}")
            for name, value in zip(plan.positional, args, strict=False):
                if name in kwargs:
                    raise _wrong(cls, f"got multiple values for argument {name!r}")
                kwargs[name] = value
            for name, default, factory in plan.every:
                value = kwargs.pop(name, MISSING)
                if value is MISSING:
                    value = default if factory is MISSING else factory()
                    if value is MISSING:
                        raise _wrong(cls, f"is missing the argument {name!r}")
                _set(self, name, value)
            if kwargs:
                raise _wrong(cls, f"got an unexpected keyword argument {next(iter(kwargs))!r}")

        def __setattr__(self, name, value):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def __delattr__(self, name):
            raise FrozenInstanceError(f"cannot delete field {name!r}")

        def __getstate__(self):
            return [getattr(self, each.name) for each in fields(self)]

        def __setstate__(self, state):
            for each, value in zip(fields(self), state, strict=True):
                _set(self, each.name, value)


if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen, slots=False, kw_only=False, init=True):
        """`dataclass`, for a class below `Record` that has the fields of no other one. `init=False`: it brings its own
        `__init__`."""

        def make(cls):
            made = dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
            made.__dataclass_params__.frozen = frozen  # to those who ask, and to dataclasses below it
            if init:
                made.__init__ = Record.__init__
            return made

        return make


class _Plan:
    """What an `__init__` has to do. positional: names; every: (name, default, factory); left: calls that it is for."""

    __slots__ = ("every", "left", "positional")

    def __init__(self, cls: type) -> None:
        self.positional = [each.name for each in _fields(cls) if not each.kw_only]
        self.every = [(each.name, each.default, each.default_factory) for each in _fields(cls)]
        self.left = OFTEN


def _make_plan(cls: Any) -> _Plan:
    cls._plan = _Plan(cls)
    return cls._plan  # type: ignore[no-any-return]


def _make_init(cls: type) -> Any:
    """`__init__` as `dataclass` writes it for a frozen class of these fields: it belongs to no class."""
    same = [
        (each.name, each.type, field(default=each.default, default_factory=each.default_factory, kw_only=each.kw_only))
        for each in _fields(cls)
    ]
    twin: Any = make_dataclass(cls.__name__, same, frozen=True, eq=False, repr=False)
    return twin.__init__


def _wrong(cls: type, what: str) -> TypeError:
    return TypeError(f"{cls.__name__}.__init__() {what}")


def _fields(record: Any) -> Any:
    return fields(record)
