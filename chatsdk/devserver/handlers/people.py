"""Users, presence and mentions (contract, sections 8 and 10)."""

from __future__ import annotations

from chatsdk.devserver.answers import SUCCESS, Answer, ok, refused, thrown
from chatsdk.devserver.checks import Form, whole_number
from chatsdk.devserver.handlers.channels import joined
from chatsdk.devserver.ids import from_iso
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.world import Call


def me(call: Call) -> Answer:
    return ok(call.world.people.profile(call.user))


def update_me(call: Call) -> Answer:
    form = call.form()
    form.string("name", most=255)
    form.string("image", form="url")
    form.mapping("custom")
    form.done()
    with call.world.db.transaction():
        return ok(call.world.people.update(call.user, form.fields))


def get_user(call: Call) -> Answer:
    found = call.world.people.visible(call.params["user"], call.now)
    if found is None:
        raise refused(404, "User not found")
    return ok(found)


def list_users(call: Call) -> Answer:
    limit = whole_number(call.query.get("limit"), 50, "limit", most=100)
    offset = whole_number(call.query.get("offset"), 0, "offset")
    return ok({"users": call.world.people.search(call.query.get("q", ""), limit, offset, call.now)})


def block(call: Call) -> Answer:
    if call.params["user"] == call.user:
        raise refused(400, "Cannot block yourself")
    if not call.world.people.exists(call.params["user"]):
        raise refused(404, "User not found")
    call.world.people.block(call.user, call.params["user"], call.now)
    return SUCCESS


def unblock(call: Call) -> Answer:
    call.world.people.unblock(call.user, call.params["user"])
    return SUCCESS


def blocked(call: Call) -> Answer:
    return ok({"blockedUsers": call.world.people.blocked(call.user)})


def heartbeat(call: Call) -> Answer:
    call.world.people.touch(call.user, call.now)
    return SUCCESS


def online(call: Call) -> Answer:
    return _presence(call, online=True)


def offline(call: Call) -> Answer:
    return _presence(call, online=False)


def _presence(call: Call, *, online: bool) -> Answer:
    with call.world.db.transaction():
        call.world.people.touch(call.user, call.now, online)
        call.world.events.presence(call.user, call.now, online=online)
    return SUCCESS


def query_presence(call: Call) -> Answer:
    """Only of users with whom the caller shares a channel."""
    form = call.form()
    users = form.strings("userIds")
    if not form.issues and not 1 <= len(users or ()) <= 100:
        form.issue("userIds", "custom", "userIds must name 1 to 100 users")
    form.done()
    people = call.world.people
    seen = people.presence(people.sharing_a_channel(call.user, users or ()), call.now)
    return ok(
        {
            "presence": {
                each["id"]: {
                    "online": each["online"],
                    "lastSeen": each["lastSeen"],
                    "user": {name: each[name] for name in ("id", "name", "image")},
                }
                for each in seen
            }
        }
    )


def mentions(call: Call) -> Answer:
    limit = whole_number(call.query.get("limit"), 50, "limit", most=100)
    given = call.query.get("before")
    before = from_iso(given) if given else None
    if given and before is None:
        raise thrown(400, "Query parameter 'before' must be an ISO 8601 time")
    found = call.world.messages.mentions_of(call.user, limit + 1, before)
    return ok({"mentions": found[:limit], "hasMore": len(found) > limit})


def mention_count(call: Call) -> Answer:
    return ok({"count": call.world.messages.mention_count(call.user)})


def search_mentionable(call: Call) -> Answer:
    """Members of a channel whose name or id begins with the text."""
    form = Form(call.query)
    text = form.string("q", required=True)
    channel = form.string("channelId", required=True, form="uuid")
    form.done()
    call.params = {"channel": str(channel)}
    wanted = str(text).casefold()
    members = call.world.channels.members(joined(call))
    limit = whole_number(call.query.get("limit"), 10, "limit", most=50)
    fitting = [
        {name: member[name] for name in ("id", "name", "image")}
        for member in members
        if member["id"] != call.user
        and (member["id"].casefold().startswith(wanted) or (member["name"] or "").casefold().startswith(wanted))
    ]
    return ok({"users": fitting[:limit]})


OPERATIONS = (
    Operation("me", "GET", "/api/users/me", me),
    Operation("update_me", "PATCH", "/api/users/me", update_me),
    Operation("blocked", "GET", "/api/users/me/blocked", blocked),
    Operation("list_users", "GET", "/api/users", list_users),
    Operation("get_user", "GET", "/api/users/{user}", get_user),
    Operation("block", "POST", "/api/users/{user}/block", block),
    Operation("unblock", "DELETE", "/api/users/{user}/block", unblock),
    Operation("heartbeat", "POST", "/api/presence/heartbeat", heartbeat, "typing:write"),
    Operation("online", "POST", "/api/presence/online", online, "typing:write"),
    Operation("offline", "POST", "/api/presence/offline", offline, "typing:write"),
    Operation("query_presence", "POST", "/api/presence/query", query_presence, "chat:read"),
    Operation("mentions", "GET", "/api/mentions", mentions),
    Operation("mention_count", "GET", "/api/mentions/unread-count", mention_count),
    Operation("search_mentionable", "GET", "/api/mentions/search", search_mentionable),
)
