"""The control run's plugin: every try goes out under a key of its own.

That is what a client without idempotency does. It stands where any third party's plugin may stand (stage ATTEMPT) and
uses nothing that they could not use: it rewrites `clientMsgId` on the way out, and on the way back, so that the client
recognises the answer. With it, each lost reply becomes a duplicate; a demo that did not notice would prove nothing.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any

from ...plugin import CallNext, Middleware, Request, Response, Stage, hookimpl


class FreshKeys:
    """The plugin object."""

    @hookimpl
    def chatsdk_middleware(self) -> Middleware:
        """One layer, inside the retries."""
        return Middleware("fresh-keys", Stage.ATTEMPT, _with_fresh_key)


def _with_fresh_key(request: Request, call_next: CallNext) -> Response:
    if request.method != "POST" or not isinstance(request.body, Mapping) or "clientMsgId" not in request.body:
        return call_next(request)
    fresh = str(uuid.uuid4())
    response = call_next(request.with_body(clientMsgId=fresh).replace(key=fresh))
    return dataclasses.replace(response, body=_renamed(response.body, fresh, request.key))


def _renamed(value: Any, fresh: str, key: str | None) -> Any:
    """The JSON value with the fresh key replaced wherever it stands."""
    if isinstance(value, dict):
        return {name: _renamed(item, fresh, key) for name, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, fresh, key) for item in value]
    return key if value == fresh else value
