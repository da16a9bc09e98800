"""The client of the processes that are killed."""

from __future__ import annotations

from typing import Any

from chatsdk import ChatClient


def client(job: dict[str, Any], *, background: bool, **more: Any) -> ChatClient:
    """A client as an ordinary program makes it."""
    return ChatClient(
        job["url"],
        job["token"],
        state_dir=job["state"],
        background=background,
        discover=False,
        trust_env=False,
        close_timeout=20,
        **more,
    )
