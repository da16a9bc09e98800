"""`chat.outbox`: what waits, what died, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..core.errors import NotFound
from ..core.identity import is_uuid
from ..core.models import FlushReport
from ..core.store import Row, Selection, State, Stats
from ..outbox.outbox import Outbox
from .receipt import Receipt

_TOO_LONG = 19
"""Digits of a number that is no row's id: SQLite's integers have up to 18 of any kind."""


class OutboxResource:
    """The outbox of this client's state directory, of all users; of one user where this is a user's view."""

    def __init__(self, outbox: Callable[[], Outbox], receipt: Callable[..., Receipt], user: str | None = None) -> None:
        self._open = outbox
        self._receipt = receipt
        self._user = user

    def list(self, *, state: State | str = State.QUEUED, limit: int = 1000) -> Sequence[Receipt]:
        """Messages in `state`, oldest first."""
        return self._select(Selection(states=(State(state),), user=self._user, limit=limit))

    def dead(self, *, limit: int = 1000) -> Sequence[Receipt]:
        """The dead letters, oldest first."""
        return self.list(state=State.DEAD, limit=limit)

    def get(self, id: int | str) -> Receipt:
        """One message, by its id or key; results stay known for 24 h. Raises NotFound, also in a user's view for what
        is another user's."""
        outbox = self._open()
        row = self._find(outbox, id)
        if row is None:
            raise NotFound(f"the outbox knows no message {id!r}", hint="results are known for 24 h")
        return self._receipt(row, outbox)

    def retry(self, ids: Iterable[int | str] | None = None) -> int:
        """Send dead letters again (None: all): they go to the end of their lanes, with their keys. Returns how many."""
        outbox = self._open()
        return outbox.retry(self._ids(outbox, ids, (State.DEAD,)))

    def discard(self, ids: Iterable[int | str] | None = None) -> int:
        """Give up dead letters (None: all of them) or, by id, waiting messages; they are counted. Returns how many."""
        outbox = self._open()
        states = (State.DEAD,) if ids is None else (State.DEAD, State.QUEUED)
        return outbox.discard(self._ids(outbox, ids, states))

    def flush(self, budget: float | None = None) -> FlushReport:
        """Send what waits, for at most `budget` seconds (None: until nothing can be sent now)."""
        return self._open().flush(budget)

    def stats(self) -> Stats:
        """Loss accounting: accepted = delivered + dead + pending + discarded."""
        return self._open().stats()

    def _select(self, selection: Selection) -> Sequence[Receipt]:
        outbox = self._open()
        return [self._receipt(row, outbox) for row in outbox.list(selection)]

    def _find(self, outbox: Outbox, id: int | str) -> Row | None:
        row: Row | None = None
        text = str(id)
        if isinstance(id, str) and is_uuid(id):
            row = outbox.get(key=id.lower())
        elif text.isdecimal() and len(text) < _TOO_LONG:  # a number that no table can hold is no row's
            row = outbox.get(id=int(text))
        return row if row is None or self._user in (None, row.request.user) else None

    def _ids(self, outbox: Outbox, ids: Iterable[int | str] | None, states: Sequence[State]) -> Sequence[int]:
        if ids is not None:
            rows = (self._find(outbox, id) for id in ids)
            return [row.id for row in rows if row is not None and row.state in states]
        return [row.id for row in outbox.list(Selection(states=states, user=self._user, limit=1_000_000))]
