"""The server: does it answer, is it the server that answers, what time is it there, does it take the token, and does
the websocket work? Through the client's own parts, so what works here works in a program with these settings."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...auth.expiry import read_claims
from ...core.errors import ChatError, SettingsError
from ...core.identity import uuid7
from ...pipeline.transport import Transport
from . import verdicts
from .findings import Finding, Verdict, fail, ok, skip

if TYPE_CHECKING:
    from ...client import ChatClient

_STATE = ("state_directory", "untrusted")
"""Codes of errors that the check of the state directory tells."""


class Server:
    """`skew`: the server's clock minus ours in seconds, once it is known."""

    def __init__(self, chat: ChatClient) -> None:
        self._chat = chat
        self.skew: float | None = None

    def answer(self, limit: float) -> Iterator[Finding]:
        """Ask /health, past circuits and retries: captive portal, server, clock."""
        health = self._chat._parts.backend.health()
        request = health.request.replace(
            correlation_id=uuid7(time.time(), os.urandom(10)), deadline=time.monotonic() + limit, single_try=True
        )
        transport = Transport.from_settings(self._chat.settings, on_skew=self._observe)
        status, error = "", None
        try:
            status = health.parse(transport(request)).status
        except ChatError as caught:
            error = caught
        finally:
            transport.close()
        portal = verdicts.of_portal(error)
        if portal.verdict is Verdict.FAIL:
            yield from (portal, skip("server", portal.check), skip("clock", portal.check))
            return
        if verdicts.no_answer(error):
            yield from (skip("captive portal", "server"), verdicts.of_health(status, error), skip("clock", "server"))
            return
        yield from (portal, verdicts.of_health(status, error), verdicts.of_skew(self.skew))

    def token(self, limit: float) -> Finding:
        """Have a token, and let the server say whose it is."""
        chat, settings = self._chat, self._chat.settings
        until, ends = time.monotonic() + limit, None
        try:
            held = chat._parts.users.manager(chat.user).token(deadline=until)
            ends = held.expires_at or read_claims(held.access.reveal()).expires_at
            user = chat.call(chat._backend.me(chat.user), timeout=max(0.1, until - time.monotonic()), fresh=True)
        except SettingsError as error:
            if error.code in _STATE:
                return skip("token", "state directory")
            return fail("token", error.message, error.hint)
        except ChatError as error:
            return verdicts.of_token_error(error, None if ends is None else self._now() - ends)
        renewable = bool(settings.refresh_token or settings.token_file or settings.token_command)
        return verdicts.of_token(user.id, None if ends is None else ends - self._now(), renewable=renewable)

    def websocket(self, limit: float) -> Finding:
        """Connect as a program would, and end it again."""
        chat = self._chat
        began = time.monotonic()
        error: ChatError | None = None
        try:
            if chat.connect(wait=limit):
                took = (time.monotonic() - began) * 1000
                return ok("websocket", f"connected to {chat.connection.metrics().url} in {took:.0f} ms")
            error = chat.connection.error
        except SettingsError as caught:
            if caught.code in _STATE:
                return skip("websocket", "state directory")
            error = caught
        except ChatError as caught:
            error = caught
        if error is None:
            return fail(
                "websocket",
                f"not connected within {limit:.0f} s",
                "a proxy or filter may stop websockets (ws_url); messages are sent all the same",
            )
        return fail("websocket", error.message, error.hint)

    def _observe(self, skew: float) -> None:
        self.skew = skew

    def _now(self) -> float:
        return time.time() + (self.skew or 0.0)
