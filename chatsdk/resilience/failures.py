"""The last errors, by kind, as figures: what fails, how often, since when. Pure: `now` is Unix time.

A kind is (operation, class of the error, code, status). What a server, a user or a stranger's plugin writes must not
fill our memory or our screen, so
* at most `KINDS` are kept, the one that was seen longest ago goes first;
* a server chooses codes and statuses: of one operation and class at most `VARIETIES` are told apart, the rest are
  `OTHER`;
* code, message and correlation id are cut, and their control characters shown as such;
* of an error that is none of ours only the class is kept: nobody knows what a stranger writes into its text.
"""

from __future__ import annotations

from collections import OrderedDict

from ..core.errors import ChatError, StatusError
from ..core.plain_text import excerpt
from ..core.record import Record, record

KINDS = 50
VARIETIES = 8
"""A server's mistakes are of few kinds; one that sends another code each time is to push no other error out."""

OTHER = "other"

LONGEST_MESSAGE = 200
LONGEST_WORD = 64
"""Characters of a code or a correlation id (a UUID has 36)."""


@record(frozen=True, slots=True, kw_only=True)
class Failure(Record):
    """Errors of one kind.

    operation       what failed: "messages.send"; "other" for one of too many
    error           the error's class: "ServerError"
    code, status    of the last one; code may be "other"; status None: no answer, or one of too many
    count           how many there were
    first_at        Unix time of the first, and `last_at` of the last one
    correlation_id  of the last call, "" if it had none
    message         of the last one, at most 200 characters; "" for an error that is none of chatsdk's
    """

    operation: str
    error: str
    code: str
    status: int | None
    count: int
    first_at: float
    last_at: float
    correlation_id: str
    message: str

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {name: getattr(self, name) for name in self.__slots__}


Kind = tuple[str, str, str, int | None]


class _Seen:
    """What changes of a kind."""

    __slots__ = ("correlation_id", "count", "first_at", "last_at", "message")

    def __init__(self, now: float) -> None:
        self.count = 0
        self.first_at = self.last_at = now
        self.correlation_id = self.message = ""


class Failures:
    """The table. Not thread-safe."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: OrderedDict[Kind, _Seen] = OrderedDict()

    def add(self, operation: str, error: BaseException, correlation_id: str, now: float) -> None:
        """One more. `operation`: one of a bounded set."""
        kind = self._kind(operation, error)
        message = excerpt(str(error.message), LONGEST_MESSAGE) if isinstance(error, ChatError) else ""
        seen = self._kinds.get(kind)
        if seen is None:
            seen = self._kinds[kind] = _Seen(now)
            if len(self._kinds) > KINDS:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(kind)
        seen.count += 1
        seen.last_at = now
        seen.correlation_id = excerpt(str(correlation_id), LONGEST_WORD)
        seen.message = message

    def all(self) -> tuple[Failure, ...]:
        """Every kind, the last one first."""
        return tuple(
            Failure(
                operation=operation,
                error=error,
                code=code,
                status=status,
                count=seen.count,
                first_at=seen.first_at,
                last_at=seen.last_at,
                correlation_id=seen.correlation_id,
                message=seen.message,
            )
            for (operation, error, code, status), seen in reversed(self._kinds.items())
        )

    def _kind(self, operation: str, error: BaseException) -> Kind:
        name = type(error).__name__
        kind = operation, name, code_of(error), status_of(error)
        if kind not in self._kinds and sum(known[:2] == kind[:2] for known in self._kinds) >= VARIETIES:
            return operation, name, OTHER, None
        return kind


def code_of(error: BaseException) -> str:
    """The error's code, fit to be shown; "" for an error that is none of ours."""
    return excerpt(str(error.code), LONGEST_WORD) if isinstance(error, ChatError) else ""


def status_of(error: BaseException) -> int | None:
    """The status of the answer, None if there was none."""
    return error.status if isinstance(error, StatusError) and error.status else None
