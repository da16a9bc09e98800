"""What frozen values have in common, written once.

`dataclass` writes and compiles six methods for each class, and half of them differ in nothing but the names of the
fields. With some fifty classes that is a tenth of the time of a process that sends one message. So a class below
`Record` says `eq=False, repr=False`, and behaves as if it had not.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class Record:
    """Base of dataclasses that are equal, hashed and shown by their fields."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _compared(self))

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, each.name) for each in _fields(self) if _is_hashed(each)))

    def __repr__(self) -> str:
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in _fields(self) if each.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"


def _fields(record: Any) -> Any:
    return fields(record)


def _compared(record: Record) -> list[str]:
    return [each.name for each in _fields(record) if each.compare]


def _is_hashed(each: Any) -> bool:
    return bool(each.compare if each.hash is None else each.hash)
