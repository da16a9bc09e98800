"""Waiting for a thread to end, from whichever thread."""

from __future__ import annotations

import threading


def has_ended(thread: threading.Thread | None, timeout: float) -> bool:
    """Wait for it, at most `timeout` seconds; whether it has ended. Without one, and for the calling thread itself,
    which cannot wait for its own end, there is nothing to wait for: True."""
    if thread is None or thread is threading.current_thread():
        return True
    thread.join(timeout)
    return not thread.is_alive()
