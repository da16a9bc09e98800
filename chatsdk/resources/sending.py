"""How a message is sent: made once, accepted once, stored, and then waited for.

The outbox is the only way a message leaves; a waiting send just waits for its own row. So there is one path, one order
and one promise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ..core.backend import Backend
from ..core.clock import Clock
from ..core.errors import InvalidMessage, OutboxFullError, SettingsError, StorageError
from ..core.exchange import Request
from ..core.identity import message_key, uuid7
from ..core.models import Attachment
from ..core.settings import Settings
from ..core.store import Put, State
from ..outbox.outbox import Outbox
from ..resilience.deadline import clamp
from .receipt import Receipt


class Sender:
    """`send` for every user of one client. trouble: told why nothing can be accepted, and "" when it can be again."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        clock: Clock,
        accept: Callable[[Request], Request],
        outbox: Callable[[], Outbox],
        receipt: Callable[..., Receipt],
        trouble: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._clock = clock
        self._accept = accept
        self._outbox = outbox
        self._receipt = receipt
        self._trouble = trouble
        self._refusing = False

    def send(
        self,
        user: str,
        channel: str,
        text: str,
        *,
        attachments: Sequence[Attachment],
        reply_to: str | None,
        parent_id: str | None,
        key: str | None,
        ttl: float | None,
        wait: float | None,
    ) -> Receipt:
        """See `Messages.send`."""
        if not isinstance(attachments, Sequence):
            raise InvalidMessage(f"attachments must be a list of Attachment objects, not {type(attachments).__name__}")
        seconds = self._wait(wait)
        lifetime = self._ttl(ttl)
        now = self._clock.time()
        made = uuid7(now, os.urandom(10)) if key is None else self._key(key, user, channel)
        request = self._backend.send_message(
            user, channel, text, key=made, attachments=attachments, reply_to=reply_to, parent_id=parent_id
        ).replace(correlation_id=uuid7(now, os.urandom(10)))
        outbox, put = self._put(request, lifetime)
        receipt = self._receipt(put.row, outbox)
        seconds = clamp(seconds)
        if seconds > 0 and put.row.state is State.QUEUED:
            if outbox.background:
                if outbox.stuck(put.row.lane, wait=seconds, status=put.lane) is None:
                    # who names a time means it; the default must not make an outage of the chat one of the caller
                    outbox.wait(put.row.id, seconds, until_stuck=wait is None)
            else:
                outbox.deliver_inline(put.row.id, seconds)
        elif not outbox.background:
            outbox.leave_to_others()
        return receipt.raise_if_dead()

    def _put(self, request: Request, ttl: float) -> tuple[Outbox, Put]:
        """Accept it. Where the disk or the outbox takes nothing, that is said once, and once more when it does."""
        try:
            outbox = self._outbox()
            put = outbox.accept(self._accept(request), ttl)
        except (OutboxFullError, SettingsError, StorageError) as error:
            if not self._refusing and error.code != "closed":
                self._refusing = True
                self._trouble(error.message or error.code)
            raise
        if self._refusing:
            self._refusing = False
            self._trouble("")
        return outbox, put

    def _key(self, key: Any, user: str, channel: str) -> str:
        if not isinstance(key, str) or not key:
            raise InvalidMessage("key must be a text that is not empty")
        try:
            return message_key(key, server=self._settings.url, user=user, channel=channel)
        except UnicodeEncodeError:
            raise InvalidMessage("key holds a lone surrogate, which is no text") from None

    def _wait(self, wait: Any) -> float:
        if wait is None:
            return self._settings.send_wait
        if isinstance(wait, (int, float)) and wait >= 0:  # False is 0
            return float(wait)
        raise InvalidMessage(f"wait must be seconds, 0 or more: {wait!r}")

    def _ttl(self, ttl: Any) -> float:
        if ttl is None:
            return self._settings.ttl
        if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or not 0 < ttl <= self._settings.key_retention:
            raise InvalidMessage(
                f"ttl must be more than 0 and at most key_retention, {self._settings.key_retention:g} s: {ttl!r}",
                hint="the server must know a message's key as long as the outbox may send it",
            )
        return float(ttl)
