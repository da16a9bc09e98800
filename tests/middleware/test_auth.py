"""Auth: every try is signed; a refused token is replaced once."""

from __future__ import annotations

import pytest

from chatsdk.core.errors import Forbidden, NotSentError, TokenExpiredError, Unauthorized
from chatsdk.core.exchange import Request, Response
from chatsdk.middleware.auth import chatsdk_middleware
from chatsdk.plugin import Stage
from tests.pipeline.kit import Client, Script, read, send

OK = Response(status=200)


def tokens(script: Script) -> list[str | None]:
    return [request.headers.get("Authorization") for request in script.seen]


def test_signs() -> None:
    """The user's header is added to what is sent, not to what is kept."""
    client, script, request = Client(), Script(OK), send(headers={"X-Other": "1"})
    layer = chatsdk_middleware(client)
    assert layer.stage is Stage.AUTH
    layer.call(request, script)
    assert script.seen[0].headers == {"X-Other": "1", "Authorization": "Bearer old"}
    assert request.headers == {"X-Other": "1"}
    assert client.authorized == [(request, False)]


def test_401_forces_one_refresh_and_one_retry() -> None:
    """The refused request is shown to `authorize`, so that it knows which token it was."""
    client, script = Client(), Script(Unauthorized(status=401), OK)
    assert chatsdk_middleware(client).call(read(), script) is OK
    assert tokens(script) == ["Bearer old", "Bearer new"]
    refused, force = client.authorized[1]
    assert (refused.headers["Authorization"], force) == ("Bearer old", True)


def test_second_401_surfaces() -> None:
    """One retry, no loop."""
    script = Script(Unauthorized(status=401))
    with pytest.raises(Unauthorized):
        chatsdk_middleware(Client()).call(read(), script)
    assert tokens(script) == ["Bearer old", "Bearer new"]


def test_no_other_token_no_retry() -> None:
    """The same token would be refused again."""
    client, script = Client(), Script(Unauthorized(status=401))
    client.tokens = ["only", "only"]
    with pytest.raises(Unauthorized):
        chatsdk_middleware(client).call(read(), script)
    assert tokens(script) == ["Bearer only"]


@pytest.mark.parametrize("error", [Forbidden(status=403), NotSentError()])
def test_other_errors_are_no_matter_of_tokens(error: Exception) -> None:
    """Only a 401 is."""
    client = Client()
    with pytest.raises(type(error)):
        chatsdk_middleware(client).call(read(), Script(error))
    assert len(client.authorized) == 1


def test_lost_session_surfaces() -> None:
    """What `authorize` raises is what the caller gets."""
    client = Client()

    def lost(request: Request, force: bool) -> dict[str, str]:
        raise TokenExpiredError

    client.authorize = lost  # type: ignore[method-assign]
    script = Script(OK)
    with pytest.raises(TokenExpiredError):
        chatsdk_middleware(client).call(read(), script)
    assert script.seen == []


@pytest.mark.parametrize("request_", [read(user=""), send(operation="auth.refresh")])
def test_unsigned_calls(request_: Request) -> None:
    """Health has no user, and a refresh brings its own token."""
    client, script = Client(), Script(OK)
    chatsdk_middleware(client).call(request_, script)
    assert tokens(script) == [None]
    assert client.authorized == []
