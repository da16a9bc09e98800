"""All checks, in the order in which one failure explains the next, within one time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

from ...core.errors import ChatError
from ..options import Options
from . import local
from .findings import Finding, Verdict, fail, skip
from .server import Server
from .way import Way

LIMIT = 4.0
"""Seconds for one check of the network, if `timeout` is not less."""

ALL = 25.0
"""Seconds after which no check gets more than `LEAST`; so all together end within 30."""

LEAST = 0.3
"""Seconds that each check gets in any case."""


_ASKING = ("captive portal", "server", "clock", "token", "websocket")


def examine(options: Options) -> Iterator[Finding]:
    """Every finding, as soon as it is there. Raises SettingsError for settings that say nothing to look at."""
    settings = options.settings()
    settings.require("url")
    each, until = min(settings.timeout, LIMIT), time.monotonic() + ALL

    def limit() -> float:
        return max(LEAST, min(each, until - time.monotonic()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is among the findings
        yield local.settings(settings)
        yield local.directory(settings)
        yield local.plugins(options)
        way = Way(settings)
        blocked = ""
        for check, look in (
            ("proxy", lambda _: way.proxy()),
            ("dns", way.dns),
            ("tcp", way.tcp),
            ("tls", way.tls),
        ):
            finding = skip(check, blocked) if blocked else look(limit())
            yield finding
            if finding.verdict is Verdict.FAIL:
                blocked = finding.check
        if blocked:
            yield from (skip(check, blocked) for check in _ASKING)
            return
        try:
            chat = options.listener(timeout=each, connect_timeout=each, close_timeout=1.0)
        except ChatError as error:
            yield fail("client", error.message, error.hint)
            yield from (skip(check, "client") for check in _ASKING)
            return
        with chat:
            server = Server(chat)
            for finding in server.answer(limit()):
                yield finding
                if finding.verdict is Verdict.FAIL and finding.check == "captive portal":
                    blocked = finding.check
                elif finding.verdict is Verdict.SKIP:
                    blocked = blocked or "server"
            finding = skip("token", blocked) if blocked else server.token(limit())
            yield finding
            if finding.verdict is Verdict.FAIL:  # it is the websocket's, too; and a slow source is not asked twice
                blocked = finding.check
            yield skip("websocket", blocked) if blocked else server.websocket(limit())
