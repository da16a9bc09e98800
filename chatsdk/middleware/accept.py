"""Accept: the last look at a message before it is stored.

The backend checked what the user gave; plugins may have changed it since (moderation, encryption). What the outbox
stores is sent again and again until it is delivered or dies, so what the server would answer with an error is refused
here, while the caller still hears of it. `[plugins.accept] max_text` is the longest text in UTF-16 units; the default
is the ChatSDK server's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chatsdk.plugin import Request, errors, hookimpl

MAX_TEXT = 10_000
"""UTF-16 units in a message (server contract, 7)."""


@hookimpl(trylast=True)
def chatsdk_accept(request: Request, config: Mapping[str, Any]) -> None:
    """Refuse a body that is no JSON, a text that no server takes, and an id that is not the message's key. Raises
    InvalidMessage."""
    body = request.body
    if body is None:
        return
    if not isinstance(body, dict):
        raise errors.InvalidMessage(f"a message's body must be a JSON object, not {type(body).__name__}")
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # lone surrogates are ValueErrors too
        raise errors.InvalidMessage(f"a message's body must be JSON: {type(error).__name__}") from error
    if "text" in body:
        _check_text(body["text"], int(config.get("max_text", MAX_TEXT)))
    if body.get("clientMsgId", request.key) != request.key:
        raise errors.InvalidMessage("clientMsgId is not the message's key: a repeat would be a second message")


def _check_text(text: Any, most: int) -> None:
    if not isinstance(text, str):
        raise errors.InvalidMessage(f"text must be a str, not {type(text).__name__}")
    if "\0" in text:
        raise errors.InvalidMessage("text holds U+0000, which the server can't store")
    units = len(text.encode("utf-16-le")) // 2
    if not 1 <= units <= most:
        raise errors.InvalidMessage(f"text must have 1 to {most} UTF-16 units, not {units}")
