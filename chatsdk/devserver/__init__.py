"""The other end of the wire: a ChatSDK server for development, demos and tests, with switches for every fault.

One process, one SQLite file (or memory), loopback only. It keeps the contract of the real server and behaves well where
that one does not. `DevServer` starts one in a process of its own; `run` runs one in this process. It imports nothing of
the SDK, so what it tests is never its own reflection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatsdk.devserver.process import DevServer
    from chatsdk.devserver.server import Ready, run
    from chatsdk.devserver.settings import GENERAL_CHANNEL_ID, ServerSettings

__all__ = ["GENERAL_CHANNEL_ID", "DevServer", "Ready", "ServerSettings", "run"]

_HOMES = {
    "DevServer": "process",
    "GENERAL_CHANNEL_ID": "settings",
    "Ready": "server",
    "ServerSettings": "settings",
    "run": "server",
}


def __getattr__(name: str) -> Any:
    # Lazily: `DevServer` needs the standard library only, and must not load the server's extra.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
