"""Auth: signs the try. A 401 forces one refresh and one retry; a second 401 surfaces.

Where tokens come from, when they are refreshed and that only one refresh runs at a time is the business of
`client.authorize`. Calls without a user (health) and those that bring their own token (`auth.*`) pass unsigned.
"""

from __future__ import annotations

import logging

from chatsdk.plugin import CallNext, Middleware, PluginClient, Request, Response, Stage, errors, hookimpl

log = logging.getLogger("chatsdk.auth")


class Auth:
    """The layer."""

    def __init__(self, client: PluginClient) -> None:
        self._authorize = client.authorize

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One try with the user's token; a second one with a newer token, if the first was refused."""
        if not request.user or request.operation.startswith("auth."):
            return call_next(request)
        headers = self._authorize(request, False)
        signed = request.with_headers(headers)
        try:
            return call_next(signed)
        except errors.Unauthorized:
            _say("%s: the token was refused, another one is asked for", request)
            newer = self._authorize(signed, True)
            if newer == headers:  # there is no other token: the same one would be refused again
                _say("%s: there is no other token", request)
                raise
        _say("%s: there is another token", request)
        return call_next(request.with_headers(newer))


def _say(what: str, request: Request) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug(what, request.operation, extra={"correlation_id": request.correlation_id})


@hookimpl
def chatsdk_middleware(client: PluginClient) -> Middleware:
    """The layer."""
    return Middleware("auth", Stage.AUTH, Auth(client))
