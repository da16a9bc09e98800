"""The real clock."""

from __future__ import annotations

import time

from ..core.clock import Waitable


class SystemClock:
    """Time as the operating system has it; see `core.clock.Clock`."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def wait(self, event: Waitable, timeout: float) -> bool:
        """Wait until `event` is set or `timeout` seconds passed; True if it was set."""
        return event.wait(timeout)
