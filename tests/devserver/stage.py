"""What existed on the real server before each scenario was recorded: users, channels, messages.

The recorder's preparations are not in the transcripts; these were read off the notes and the first answers. Channels
and messages get their recorded ids, so that the requests fit as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.devserver.replay import Player

ALL = ["chat:read", "chat:write", "channel:create", "reaction:write", "typing:write", "upload:write", "search:read"]
PEOPLE = ["alice", "bob", "carol", "dave", "erin", "frank", "tom", "lena", "walt", "yuri", "rita", "ursula", "victor"]
NAMED = {"a:b": "Colon", "Zoë 🙂": "Zoë 🙂"}
ROOMS = {
    "channel-star-mute": "01a201e2-ecd3-773e-87f4-afddbf8f9446",
    "channel-delete": "01a201e2-ecff-778a-9862-ea5f7086026b",
    "typing": "01a201e2-ed4f-76dc-99c8-e8ba7515d894",
    "presence": "01a201e2-ee57-774e-a583-90bfe94e7c02",
    "send-plain": "01a201f8-da2c-7568-8539-b76e6142e34a",
    "send-attachments": "01a201f8-dacb-7300-8cce-638039e91a87",
    "clientmsgid-repeat": "01a201f8-dd62-7708-bdf7-6387a2dd8786",
    "clientmsgid-forms": "01a201f8-df8a-73c4-9e35-5734e1520d7a",
    "send-text-limits": "01a201f8-e03f-754c-9b40-3bf389d0f0b0",
    "send-bad-text": "01a201f8-e138-742a-b308-6ee837e7fab1",
    "send-malformed": "01a201f8-e16c-737e-8da0-b95f5f2c7191",
    "send-denied": "01a201f8-e211-750f-ad13-3d4954a2f453",
    "rate-limit-dup": "01a201f9-de8f-7024-b3e5-0f7f5a6a2b1a",
    "rate-limit-bad": "01a201f9-df94-70a5-91a0-5309cfaa7468",
    "big-body": "01a201f9-e2b9-770a-ad1c-ce66cc1120d9",
    "db-pool-exhausted": "01a201fb-4630-7128-8c3b-5154de6cafb3",
    "send-client-timeout": "01a201fb-5b16-76ff-a66d-8aa6e1d3d953",
}
"""Scenarios that need one channel `room` of alice and bob, and nothing else."""


def prepare(player: Player, scenario: str) -> None:
    """Resets the server and builds what the scenario found."""
    server = player.server
    server.reset()
    for person in PEOPLE:
        server.control("POST", "token", {"user": person, "name": person.capitalize()})
    for person, name in NAMED.items():
        server.control("POST", "token", {"user": person, "name": name})
    ask(player, "alice", "DELETE", f"/api/channels/{server.channel_id}")
    if scenario in ROOMS:
        room(player, ROOMS[scenario])
    if scenario in STAGES:
        STAGES[scenario](player)


def ask(player: Player, user: str, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
    """A request as this user, which must succeed; returns the body."""
    authorization = f"Bearer {token}" if token else {"$bearer": {"user": user, "scopes": ALL, "ttl": 900}}
    headers: dict[str, Any] = {"Authorization": authorization}
    request: dict[str, Any] = {"method": method, "path": path, "headers": headers}
    if body is not None:
        headers["Content-Type"] = "application/json"
        request["body"] = body
    answer = player.play(request)
    assert answer.status < 300, (method, path, answer)
    return answer.body


def room(player: Player, channel: str, *members: str, name: str = "room", kind: str = "group") -> None:
    player.server.channel(*(members or ("alice", "bob")), channel_id=channel, kind=kind, name=name)


def say(
    player: Player, channel: str, user: str, text: str, message: str | None = None, parent: str | None = None
) -> None:
    wanted = {"text": text, "clientMsgId": message, "parentId": parent}
    body = {key: value for key, value in wanted.items() if value is not None}
    ask(player, user, "POST", f"/api/channels/{channel}/messages", body)


def _channel_update(player: Player) -> None:
    channel = "01a201e2-ebe7-73fa-ae8c-09b6aa9f95bf"
    room(player, channel)
    ask(player, "alice", "PATCH", f"/api/channels/{channel}", {"config": {"reactions": True, "replies": True}})
    player.server.skip(60)


def _channel_list(player: Player) -> None:
    room(player, "01a201e2-ea9c-707e-8809-c5e7cfd79a41", "alice", name="a public", kind="public")
    room(player, "01a201e2-eace-73df-9590-c2ae659c0b1c", "alice", name="a team", kind="team")
    ids = {
        "l0": "01a201e2-eb51-7039-ae4f-4652bc780e22",
        "l1": "01a201e2-eb5d-73ea-91e9-c1862088ae3e",
        "l2": "01a201e2-eb65-73bb-9292-4526bc407cc0",
    }
    for name, channel in ids.items():
        room(player, channel, "lena", "bob", name=name)
    for channel in ("01a201e2-ea9c-707e-8809-c5e7cfd79a41", "01a201e2-eace-73df-9590-c2ae659c0b1c"):
        say(player, channel, "alice", "hello")
        player.server.skip(1)
    for name in ("l0", "l2"):
        say(player, ids[name], "lena", "hello")
        player.server.skip(1)


def _read_and_unread(player: Player) -> None:
    channel = "01a201e2-ed7f-7457-ada5-43262335ab51"
    room(player, channel, "alice", "walt", name="reading")
    say(player, channel, "alice", "one", "01a201e2-ed89-70dc-a7d8-ef31b6b66d97")
    say(player, channel, "alice", "two")
    say(player, channel, "alice", "three")


def _send_parent_reply(player: Player) -> None:
    room(player, "01a201f8-db7b-729a-ac92-50e69b48bab9")
    other = "01a201f8-db84-7000-8000-000000000001"
    room(player, other)
    say(player, other, "alice", "elsewhere", "01a201f8-dbaf-7451-9752-36223476fdca")


def _app(player: Player) -> None:
    player.comparer.bound["2b5d5755-4d78-49d3-a8af-d903c548ea00"] = player.server.app_id


def _subscription_token(player: Player) -> None:
    _app(player)
    room(player, "01a201ee-67ff-749a-a4a1-3cf8cb87aeaa")
    room(player, "01a201ee-6824-758a-a3a1-8ac64d924a34", "alice", name="open", kind="public")


def _two_rooms(*channels: str) -> Callable[[Player], None]:
    def build(player: Player) -> None:
        for channel in channels:
            room(player, channel)

    return build


def _list_messages(player: Player) -> None:
    channel = "01a201f8-e251-747a-903e-118c0e36bf32"
    room(player, channel)
    room(player, "01a201f8-e4c6-72e5-bc4c-25850e292ea5")
    from tests.devserver.replay import scenarios

    ids = scenarios()["list-messages"]["steps"][0]["ids"]
    for seq in range(1, 13):
        user = "bob" if seq % 2 == 0 else "alice"
        say(player, channel, user, f"m{seq}", ids[str(seq)], ids["2"] if seq == 5 else None)
        player.server.skip(1)
    ask(player, "bob", "DELETE", f"/api/channels/{channel}/messages/{ids['8']}")


def _list_only_replies(player: Player) -> None:
    channel, parent = "01a201f8-e4dc-704f-8866-2ad88d9003a6", "01a201f8-e4ea-727a-bec4-680d7deb3420"
    room(player, channel)
    say(player, channel, "alice", "hello", parent)
    for number in range(3):
        say(player, channel, "bob", f"reply {number}", parent=parent)


def _get_one(player: Player) -> None:
    _two_rooms("01a201f8-e549-7598-b02d-f58b3200290a", "01a201f8-e552-77d9-b8cf-02e01bd44a33")(player)
    message = "01a201f8-e560-70f8-b096-226381beacaa"
    say(player, "01a201f8-e549-7598-b02d-f58b3200290a", "alice", "hello", message)


def _edit(player: Player) -> None:
    channel = "01a201f8-e5b1-7257-a2a9-286fede445b3"
    room(player, channel)
    file = {"type": "file", "url": "https://cdn.invalid/f"}
    body = {"text": "before", "clientMsgId": "01a201f8-e5c1-7756-bf53-073c040ce595", "attachments": [file]}
    ask(player, "bob", "POST", f"/api/channels/{channel}/messages", body)


def _delete(player: Player) -> None:
    channel = "01a201f8-e641-74e8-b006-1835f6ee79ae"
    room(player, channel, "alice", "bob", "carol")
    say(player, channel, "bob", "first", "01a201f8-e650-73dd-8fb7-8a82c1c58f15")
    say(player, channel, "bob", "second", "01a201f8-e662-71db-98e7-4af29c5c5997")
    say(player, channel, "alice", "third", "01a201f8-e678-7778-984f-9823c5d5090a")


def _thread(player: Player) -> None:
    channel = "01a201f8-e734-759c-a183-373576ddd517"
    room(player, channel, "tom", "bob")
    say(player, channel, "tom", "parent", "01a201f8-e73e-741c-bf22-40cc8d811349")


def _reactions(player: Player) -> None:
    room(player, "01a201f8-e806-75c8-82d5-85e57db7c31b")
    message = "01a201f8-e810-72d9-b18d-18ad12fa118f"
    say(player, "01a201f8-e806-75c8-82d5-85e57db7c31b", "alice", "hello", message)


def _send_mentions(player: Player) -> None:
    player.server.control("POST", "token", {"user": "anna", "name": "Anna Lind"})
    room(player, "01a201f8-dcb0-702c-b251-0954cc53f221", "alice", "bob", "carol", "anna")


def _auth_errors(player: Player) -> None:
    session = player.server.session("alice")
    player.comparer.bound.update({"<ws-token-15>": session["wsToken"], "<refresh-token-15>": session["refreshToken"]})


def _no_scopes_token(player: Player) -> None:
    # Connect gives all scopes here; the scenario is about a token without any.
    player.unscoped["<access-token-14>"] = "noa"


def _search(player: Player) -> None:
    room(player, "01a201f8-e9a9-75cb-b0af-9f787ad8b12a")


def _rate_limit_refresh(player: Player) -> None:
    request = {"method": "POST", "path": "/api/auth/refresh", "headers": {"Authorization": "Bearer rubbish"}}
    for _ in range(60):
        assert player.play(request).status == 401


STAGES: dict[str, Callable[[Player], None]] = {
    "channel-update": _channel_update,
    "channel-list": _channel_list,
    "channel-members": lambda player: room(player, "01a201e2-ec3f-73f7-a15e-52811145add1", name="crew"),
    "read-and-unread": _read_and_unread,
    "send-parent-reply": _send_parent_reply,
    "send-mentions": _send_mentions,
    "auth-errors": _auth_errors,
    "no-scopes-token": _no_scopes_token,
    "clientmsgid-parallel": _two_rooms(
        "01a201f8-dded-73a3-99a2-7cf43b468ae9",
        "01a201f8-de59-71e5-91a1-2ef756ecea0e",
        "01a201f8-dec7-778b-a516-d729026a1bc2",
    ),
    "clientmsgid-other-channel": _two_rooms(
        "01a201f8-df25-7459-ba82-3f39a4254ac3", "01a201f8-df2f-73b8-9100-bd21c3613e85"
    ),
    "list-messages": _list_messages,
    "list-only-replies": _list_only_replies,
    "get-one": _get_one,
    "edit": _edit,
    "delete": _delete,
    "thread": _thread,
    "reactions": _reactions,
    "search": _search,
    "subscription-token": _subscription_token,
    "prod-basic": _app,
    "rate-limit-send": _two_rooms("01a201f8-e9e7-7724-a960-aca7363a7de5", "01a201f8-e9f0-771d-b4fc-ec244f10afe4"),
    "rate-limit-refresh": _rate_limit_refresh,
    # Another member of the app has this channel; what matters is that alice has not.
    "prod-cross-app": lambda player: room(player, "01a201f7-cd81-7158-9967-1778eb26c729", "dave"),
}
