"""A web application that speaks to the chat: what gunicorn and uWSGI load.

With CHAT_START the client starts as soon as this module is loaded, where the server preloads: in its master. `close`
is what their hooks call when a worker ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from chatsdk import ChatClient

CHANNEL = os.environ["CHAT_CHANNEL"]
ROWS = 5

chat = ChatClient()
if os.environ.get("CHAT_START"):
    assert chat.send(CHANNEL, "loaded first").delivered
    for n in range(ROWS):
        chat.send(CHANNEL, f"loaded {n}", wait=0)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Send `text` to `channel`, wait `wait` seconds for delivery, and say who did it and how long that took."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    began = time.monotonic()
    receipt = chat.send(query["channel"], query["text"], wait=float(query["wait"]))
    took = time.monotonic() - began
    if float(query["wait"]):
        chat.users.me()  # by a connection of this worker, also if another one was quicker to deliver
    start_response("200 OK", [("Content-Type", "application/json"), ("Connection", "close")])
    return [json.dumps({"pid": os.getpid(), "took": took, "state": str(receipt.state)}).encode()]


def close(*_: object) -> None:
    """Send what is left."""
    chat.close()
