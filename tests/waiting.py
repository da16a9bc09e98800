"""Waiting for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SOON_S = 15.0
"""How long is waited; nothing takes nearly as long."""


def eventually(holds: Callable[[], Any], what: str = "it", seconds: float = SOON_S) -> Any:
    """Wait until `holds()` is true, and return what it gave; fail after a while."""
    ends = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < ends, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.005)
