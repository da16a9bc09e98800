"""A plugin of chatsdk that does a little of everything that a plugin can do to a message on its way.

* `chatsdk_accept`, once per message, before it is stored: what the message says is decided here, so that every try,
  every process and every retry by hand sends the same.
* a layer at CALL, once per call: adds a header to every call.
* a layer at ATTEMPT, once per try: counts tries, by operation.

Settings, under `[plugins.shout]` or as `CHATSDK_PLUGIN_SHOUT_*`: `forbidden`, words that are refused, separated by
blanks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatsdk.plugin import CallNext, Middleware, PluginClient, Request, Response, Stage, errors, hookimpl


@hookimpl
def chatsdk_accept(request: Request, config: Mapping[str, Any]) -> Request | None:
    """Refuse forbidden words; put the rest into capitals."""
    text = (request.body or {}).get("text")
    if not isinstance(text, str):
        return None
    forbidden = set(str(config.get("forbidden", "")).lower().split())
    if found := forbidden & set(text.lower().split()):
        raise errors.NotAcceptedError(f"we do not say {sorted(found)[0]!r} here", hint="say it in other words")
    return request.with_body(text=text.upper())


@hookimpl
def chatsdk_middleware(client: PluginClient) -> list[Middleware]:
    """One layer around the call and one around each try."""

    def mark(request: Request, call_next: CallNext) -> Response:
        return call_next(request.with_headers({"X-Shout": "1"}))

    def count(request: Request, call_next: CallNext) -> Response:
        client.metrics.count(f"shout_tries_{request.operation}")
        return call_next(request)

    return [Middleware("shout-mark", Stage.CALL, mark), Middleware("shout-count", Stage.ATTEMPT, count)]
