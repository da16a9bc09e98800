"""Tokens and sessions over a real socket: rotation, single use, ends of sessions, scopes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from tests.devserver.caller import call, send


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


def refresh(server: DevServer, token: str, *, in_body: bool = False) -> tuple[int, Any]:
    if in_body:
        reply = call(server, "POST", "/api/auth/refresh", {"refreshToken": token})
    else:
        reply = call(server, "POST", "/api/auth/refresh", token=token)
    return reply.status, reply.body


def connect(server: DevServer, user: str) -> dict[str, str]:
    body = {"userId": user, "displayName": user.title()}
    reply = call(server, "POST", "/api/auth/connect", body, headers={"X-API-Key": server.api_key})
    assert reply.status == 200
    found: dict[str, str] = reply.body
    return found


def test_tokens_of_connect_can_send(server: DevServer) -> None:
    """Connect's access token carries every scope (the original's carries none)."""
    token = connect(server, "alice")["token"]
    assert send(server, "hello", token=token).status == 201


@pytest.mark.parametrize("in_body", [False, True])
def test_refresh_token_is_single_use(server: DevServer, in_body: bool) -> None:
    """As bearer or in the body: it works once, its successor works, the replay is told to be revoked."""
    first = connect(server, "rita")["refreshToken"]
    status, pair = refresh(server, first, in_body=in_body)
    assert status == 200
    assert refresh(server, pair["refreshToken"], in_body=in_body)[0] == 200
    status, body = refresh(server, first, in_body=in_body)
    assert (status, body["error"]) == (
        401,
        {
            "code": "INVALID_REFRESH_TOKEN",
            "message": "Token has been revoked",
            "suggestion": "The refresh token is damaged, used up or revoked: connect again",
        },
    )


def test_one_of_many_refreshes_wins(server: DevServer) -> None:
    """Eight at once with one token: one 200, seven 401, and the winner's tokens are good."""
    token = connect(server, "rita")["refreshToken"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: refresh(server, token), range(8)))
    assert Counter(status for status, _ in answers) == {200: 1, 401: 7}
    winner = next(body for status, body in answers if status == 200)
    assert call(server, "GET", "/api/users/me", token=winner["token"]).body["id"] == "rita"


def test_access_token_ends(server: DevServer) -> None:
    """After its fifteen minutes an access token is expired; the refresh token is not."""
    pair = connect(server, "sid")
    server.skip(901)
    old = call(server, "GET", "/api/users/me", token=pair["token"])
    assert (old.status, old.body["error"]["message"]) == (401, "Token expired")
    assert refresh(server, pair["refreshToken"])[0] == 200


def test_session_ends_however_often_refreshed(server: DevServer) -> None:
    """A day after connect nothing of the session is good any more, fresh tokens included."""
    token = connect(server, "sid")["refreshToken"]
    server.skip(23 * 3600)
    pair = refresh(server, token)[1]
    server.skip(3601)
    status, body = refresh(server, pair["refreshToken"])
    assert (status, body["error"]["code"]) == (401, "REFRESH_TOKEN_EXPIRED")


def test_ended_sessions(server: DevServer) -> None:
    """A revoked session says so for both tokens; one that was made to expire says expired."""
    pair = connect(server, "sid")
    server.end_sessions("sid", "revoke")
    assert call(server, "GET", "/api/users/me", token=pair["token"]).body["error"]["message"] == (
        "Token session has been revoked"
    )
    assert refresh(server, pair["refreshToken"])[1]["error"]["message"] == ("Token session has been revoked")
    other = connect(server, "sam")
    server.end_sessions("sam", "expire")
    assert call(server, "GET", "/api/users/me", token=other["token"]).body["error"]["message"] == "Token expired"


def test_minted_tokens_are_as_ordered(server: DevServer) -> None:
    """Scopes, life and claims of a minted token are those asked for; its user is made."""
    narrow = server.mint("nora", scopes=["chat:read"])
    assert call(server, "GET", "/api/channels", token=narrow).status == 200
    assert call(server, "POST", "/api/channels", {"type": "group"}, token=narrow).status == 403
    assert call(server, "GET", "/api/channels", token=server.mint("nora", ttl=-1)).status == 401
    odd = server.mint("nora", claims={"aud": "someone-else"})
    assert call(server, "GET", "/api/channels", token=odd).body["error"]["message"] == "Invalid token"


def test_presence_fades(server: DevServer) -> None:
    """Who is online and shows no sign of life for five minutes is offline."""
    call(server, "POST", "/api/presence/online", {}, token=server.mint("alice"))
    path = f"/api/channels/{server.channel_id}/presence"
    assert call(server, "GET", path, token=server.mint("bob")).body["totalOnline"] == 1
    server.skip(301)
    assert call(server, "GET", path, token=server.mint("bob")).body["totalOnline"] == 0
