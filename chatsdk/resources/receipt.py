"""A receipt: what became of one message.

It is live: as long as the message is QUEUED, each look asks the outbox, so a receipt that was kept shows the delivery
that came later, also by another process. Once SENT or DEAD nothing changes any more. A receipt has no truth value of
its own: ask `state`, or `delivered`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.errors import ChatError, MessageRejected
from ..core.store import Reason, Row, State

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..core.models import Message
    from ..outbox.outbox import Outbox


class Receipt:
    """One accepted message. `id`: its row in the outbox; `key`: the UUID that travels as `clientMsgId`."""

    __slots__ = ("_outbox", "_read_message", "_row", "id", "key")

    def __init__(self, row: Row, outbox: Outbox, read_message: Callable[[Row], Message | None]) -> None:
        self.id = row.id
        self.key = row.key
        self._row = row
        self._outbox = outbox
        self._read_message = read_message

    # ---- what is known

    def _now(self) -> Row:
        if self._row.state is State.QUEUED:
            self._row = self._outbox.get(id=self.id) or self._row
        return self._row

    @property
    def state(self) -> State:
        """QUEUED: safe on disk; SENT; or DEAD."""
        return self._now().state

    @property
    def delivered(self) -> bool:
        """True once the server has it."""
        return self._now().state is State.SENT

    @property
    def reason(self) -> Reason | None:
        """Why it is still QUEUED, or why it is DEAD; None if there is nothing to say."""
        row = self._now()
        return self._outbox.reason(row)

    @property
    def attempts(self) -> int:
        """Tries made so far."""
        return self._now().attempts

    @property
    def channel(self) -> str:
        """The channel's id."""
        return self._row.request.channel

    @property
    def text(self) -> str:
        """What the message says, as it was accepted ("" where its backend does not call that "text")."""
        body = self._row.request.body
        return str(body.get("text", "")) if isinstance(body, dict) else ""

    @property
    def message(self) -> Message | None:
        """The message as the server stored it, once SENT."""
        row = self._now()
        return self._read_message(row) if row.state is State.SENT else None

    @property
    def error(self) -> ChatError | None:
        """The last error, as one that can be raised; None if no try failed."""
        row = self._now()
        if row.error is None:
            return None
        facts = row.error
        return ChatError(
            str(facts.get("message", "")), code=str(facts.get("code", "error")), hint=str(facts.get("hint", ""))
        )

    # ---- waiting

    def wait(self, timeout: float | None = None) -> Receipt:
        """Wait until it is SENT or DEAD, at most `timeout` seconds (None: for ever, or until a `deadline` around it is
        over). Returns itself; never raises for waiting too long."""
        if self._row.state is State.QUEUED:
            self._row = self._outbox.wait(self.id, timeout) or self._row
        return self

    def future(self) -> Future[Receipt]:
        """A future that ends with this receipt once the message is SENT or DEAD."""
        from concurrent.futures import Future

        future: Future[Receipt] = Future()

        def follow() -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(self.wait(None))

        threading.Thread(target=follow, name="chatsdk-future", daemon=True).start()
        return future

    def raise_if_dead(self) -> Receipt:
        """Raise MessageRejected if it is a dead letter, else return itself."""
        row = self._now()
        if row.state is not State.DEAD:
            return self
        error = row.error or {}
        said = error.get("message") or "no server would take it"
        raise MessageRejected(
            f"message {self.id} is a dead letter, {row.reason}: {said}", receipt=self, code=row.reason
        )

    # ---- showing

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: id, key, user, channel, text, state, delivered, reason, attempts, created_at, expires_at (Unix
        time), message, error."""
        row = self._now()
        reason = self._outbox.reason(row)
        message = self.message
        return {
            "id": row.id,
            "key": row.key,
            "user": row.request.user,
            "channel": row.request.channel,
            "text": self.text,
            "state": str(row.state),
            "delivered": row.state is State.SENT,
            "reason": None if reason is None else str(reason),
            "attempts": row.attempts,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "message": None if message is None else message.to_dict(),
            "error": None if row.error is None else dict(row.error),
        }

    def __repr__(self) -> str:
        row = self._row
        reason = f" {row.reason}" if row.reason else ""
        return f"<Receipt {row.id} {row.state}{reason} key={row.key}>"
