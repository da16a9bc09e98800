"""The plugin, without a server: hooks and layers are plain functions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from chatsdk_shout import chatsdk_accept, chatsdk_middleware

from chatsdk.plugin import Metrics, Request, Response, Stage, errors

MESSAGE = Request(operation="messages.send", method="POST", path="/x", body={"text": "Hello, heck"}, key="k")


def test_text_is_shouted() -> None:
    """The stored message is in capitals; other calls are left alone."""
    accepted = chatsdk_accept(MESSAGE, {})
    assert accepted is not None
    assert accepted.body == {"text": "HELLO, HECK"}
    assert chatsdk_accept(MESSAGE.replace(body=None), {}) is None


def test_forbidden_words_are_refused() -> None:
    """The setting's words are refused, in any case."""
    with pytest.raises(errors.NotAcceptedError, match="heck"):
        chatsdk_accept(MESSAGE, {"forbidden": "darn HECK"})


def test_layers() -> None:
    """Calls are marked, tries are counted."""
    client = SimpleNamespace(metrics=Metrics())
    mark, count = chatsdk_middleware(client)  # type: ignore[arg-type]
    assert (mark.stage, count.stage) == (Stage.CALL, Stage.ATTEMPT)
    seen: list[Request] = []

    def end(request: Request) -> Response:
        seen.append(request)
        return Response(status=200)

    mark.call(MESSAGE, lambda request: count.call(request, end))
    assert seen[0].headers == {"X-Shout": "1"}
    assert client.metrics.value("shout_tries_messages.send") == 1
