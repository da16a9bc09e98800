"""Telemetry must not change what it tells of: what goes wrong in it is logged once, and the call goes on."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

log = logging.getLogger("chatsdk.plugins.opentelemetry")

P = ParamSpec("P")
T = TypeVar("T")


def harmless(call: Callable[P, T]) -> Callable[P, T | None]:
    """`call`, or None where that raises: a sampler, a span processor or an exporter of the application's may."""
    said = threading.Event()

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return call(*args, **kwargs)
        except (Exception, SystemExit) as error:  # one that wants to leave would stop the message
            if not said.is_set():
                said.set()
                log.error("telemetry can't be kept (said once); calls are not affected", exc_info=error)
            return None

    return guarded
