"""Channels, members, typing, read marks (contract, section 6).

Rules: who is not a member is told so in three ways, as in the original (15.32): reading a channel or its messages tells
unknown (404) from forbidden (403), its inner routes always say 403, changing it always says 404.
"""

from __future__ import annotations

import sqlite3

from chatsdk.devserver import limits
from chatsdk.devserver.answers import SUCCESS, Answer, ok, refused, thrown
from chatsdk.devserver.checks import whole_number
from chatsdk.devserver.ids import canonical_uuid
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.store.channels import OPEN_TYPES
from chatsdk.devserver.world import Call

TYPES = ("messaging", "group", "team", "livestream", "public", "private")
ROLES = ("owner", "admin", "moderator", "member")
"""Highest first."""


def readable(call: Call) -> sqlite3.Row:
    """The channel of the path if the caller may read it; 404 or 403."""
    channel = call.world.channels.find(call.uuid("channel"))
    if channel is None:
        raise refused(404, "Channel not found")
    if channel["type"] not in OPEN_TYPES and call.world.channels.role(channel["id"], call.user) is None:
        raise refused(403, "Not a member of this channel")
    return channel


def joined(call: Call, code: str | None = None) -> str:
    """The id of the path's channel if the caller is a member; always 403 otherwise."""
    channel = call.uuid("channel")
    if call.world.channels.role(channel, call.user) is None:
        raise refused(403, "Not a member of this channel", code)
    return channel


def _changeable(call: Call, least_role: str, message: str = "Permission denied") -> sqlite3.Row:
    channel = call.world.channels.find(call.uuid("channel"))
    role = None if channel is None else call.world.channels.role(channel["id"], call.user)
    if channel is None or role is None:
        raise refused(404, "Channel not found")
    if ROLES.index(role) > ROLES.index(least_role):
        raise refused(403, message)
    return channel


def create(call: Call) -> Answer:
    form = call.form()
    kind = form.choice("type", TYPES) or "messaging"
    name, image = form.string("name", most=255), form.string("image", form="url")
    members, config = form.strings("memberIds"), form.mapping("config")
    workspace, key = form.string("workspaceId", form="uuid"), form.string("idempotencyKey", most=255)
    if kind == "messaging" and not form.issues and len(members or ()) != 1:
        form.issue("memberIds", "custom", "Direct messages require exactly one member ID")
    form.done()
    if workspace is not None:
        raise refused(404, "Workspace not found or no access")
    world, members = call.world, list(dict.fromkeys(members or ()))
    # The empty key is no key: the original gives everybody who sends it the same channel.
    known = world.channels.by_key(key) if key else None
    if known is not None:
        return ok(world.channels.plain(known))
    missing = [member for member in members if member not in world.people.known(members)]
    if missing and kind == "messaging":
        raise refused(404, "User not found")
    if missing:
        raise refused(404, "User not found", missingUserIds=missing)
    if kind == "messaging" and (direct := world.channels.direct(call.user, members[0])) is not None:
        return Answer(303, None, {"location": f"/api/channels/{direct}", "content-type": "text/plain"})
    with world.db.transaction():
        channel = world.channels.create(
            kind, call.user, members, call.now, name=name, image=image, config=config, idempotency_key=key or None
        )
        shape = world.channels.plain(channel)
        world.events.channel_created(shape)
    return Answer(201, shape)


def list_channels(call: Call) -> Answer:
    workspace = call.query.get("workspaceId")
    if workspace is not None and canonical_uuid(workspace) is None:
        raise thrown(400, "Query parameter 'workspaceId' must be a UUID")
    if workspace is not None:
        raise refused(403, "Not a member of this workspace")
    limit = whole_number(call.query.get("limit"), 50, "limit", most=100, lenient=True)
    offset = whole_number(call.query.get("offset"), 0, "offset", lenient=True)
    kind = call.query.get("type") or None
    return ok({"channels": call.world.channels.listed(call.user, kind, limit, offset)})


def get(call: Call) -> Answer:
    return ok(call.world.channels.own(readable(call)["id"], call.user))


def update(call: Call) -> Answer:
    form = call.form()
    form.string("name", most=255)
    form.string("image", form="url")
    form.mapping("config")
    form.done()
    channel = _changeable(call, "member" if _is_direct(call) else "admin")
    world = call.world
    with world.db.transaction():
        world.channels.update(channel["id"], form.fields, call.now)
        shape = world.channels.plain(channel["id"])
        world.events.channel_updated(shape)
    return ok(shape)


def delete(call: Call) -> Answer:
    channel, world = _changeable(call, "owner", "Only owner can delete channel"), call.world
    with world.db.transaction():
        members = world.channels.member_ids(channel["id"])
        world.channels.delete(channel["id"])
        world.events.channel_deleted(channel["id"], members)
    return SUCCESS


def list_members(call: Call) -> Answer:
    return ok({"members": call.world.channels.members(joined(call))})


def add_members(call: Call) -> Answer:
    form = call.form()
    one, many = form.string("userId", least=1), form.strings("userIds")
    if not form.issues and one is None and many is None:
        form.issue(None, "custom", "Either userId or userIds must be provided")
    form.done()
    direct = _is_direct(call)
    channel = _changeable(call, "member" if direct else "moderator")
    if direct:
        raise refused(403, "Direct message membership is fixed")
    users = list(dict.fromkeys([*([] if one is None else [one]), *(many or ())]))
    if not users:
        raise refused(400, "No users to add")
    world = call.world
    known = world.people.known(users)
    if missing := [user for user in users if user not in known]:
        raise refused(404, "User not found", missingUserIds=missing)
    with world.db.transaction():
        added = [user for user in users if world.channels.add_member(channel["id"], user, "member", call.now)]
        for user in added:
            world.events.member_joined(channel["id"], user)
    return ok({"success": True, "addedCount": len(added)})


def change_role(call: Call) -> Answer:
    form = call.form()
    role = form.choice("role", ROLES, required=True)
    form.done()
    assert role is not None
    direct = _is_direct(call)
    channel = _changeable(call, "member" if direct else "moderator")["id"]
    if direct:
        raise refused(403, "Direct message roles are fixed")
    channels, target = call.world.channels, call.params["user"]
    own = ROLES.index(channels.role(channel, call.user) or "member")
    current = channels.role(channel, target)
    if current is None:
        raise refused(404, "Member not found")
    if ROLES.index(role) < own:
        raise refused(403, "Cannot assign a role higher than your own")
    if ROLES.index(current) <= own:
        raise refused(403, "Cannot modify a member with equal or higher role")
    channels.set_member(channel, target, "role", role)
    return ok({"success": True, "role": role})


def remove_member(call: Call) -> Answer:
    """Removes a member; one's own id means leaving."""
    channels, target = call.world.channels, call.params["user"]
    channel = _changeable(call, "member")["id"]
    if target != call.user:
        own = ROLES.index(channels.role(channel, call.user) or "member")
        current = channels.role(channel, target)
        if own > ROLES.index("moderator"):
            raise refused(403, "Permission denied")
        if current is None:
            raise refused(404, "Member not found")
        if ROLES.index(current) <= own:
            raise refused(403, "Cannot remove a member with equal or higher role")
    world = call.world
    with world.db.transaction():
        channels.remove_member(channel, target)
        world.events.member_left(channel, target)
    world.hub.unsubscribe(target, world.rooms.stream(channel))
    return SUCCESS


def typing(call: Call) -> Answer:
    form = call.form()
    typing = form.boolean("typing", required=True)
    form.done()
    channel = joined(call)
    with call.world.db.transaction():
        call.world.events.typing(channel, call.user, typing=bool(typing))
    return SUCCESS


def read(call: Call) -> Answer:
    """Reads the whole channel, whatever message the body names (as the original)."""
    call.form().done()
    channel, world = joined(call), call.world
    with world.db.transaction():
        last = world.channels.mark_read(channel, call.user)
        world.events.read(channel, call.user, last)
    return ok({"success": True, "lastReadSeq": str(last)})


def star(call: Call) -> Answer:
    return _mark(call, "starred")


def mute(call: Call) -> Answer:
    return _mark(call, "muted")


def _mark(call: Call, what: str) -> Answer:
    form = call.form()
    value = form.boolean(what, required=True)
    form.done()
    call.world.channels.set_member(joined(call), call.user, what, int(bool(value)))
    return ok({"success": True, what: value})


def unread_count(call: Call) -> Answer:
    return ok({"count": call.world.channels.unread_count(call.user)})


def read_status(call: Call) -> Answer:
    return ok({"members": call.world.channels.read_status(joined(call, "FORBIDDEN"))})


def presence(call: Call) -> Answer:
    channel = joined(call)
    members = [member["id"] for member in call.world.channels.members(channel)]
    people = call.world.people.presence(members, call.now)
    online = [person for person in people if person["online"]]
    offline = [person for person in people if not person["online"]]
    return ok({"online": online, "offline": offline, "totalOnline": len(online), "totalMembers": len(members)})


def _is_direct(call: Call) -> bool:
    channel = call.world.channels.find(call.uuid("channel"))
    return channel is not None and channel["type"] == "messaging"


_BASE = "/api/channels"
_ONE = "/api/channels/{channel}"
OPERATIONS = (
    Operation("create_channel", "POST", _BASE, create, "channel:create", limits.CHANNEL_MUTATION),
    Operation("list_channels", "GET", _BASE, list_channels, "chat:read", limits.CHANNEL_READ),
    Operation("unread_count", "GET", f"{_BASE}/unread-count", unread_count, "chat:read", limits.CHANNEL_READ),
    Operation("get_channel", "GET", _ONE, get, "chat:read", limits.CHANNEL_READ),
    Operation("update_channel", "PATCH", _ONE, update, "chat:write", limits.CHANNEL_MUTATION),
    Operation("delete_channel", "DELETE", _ONE, delete, "chat:write", limits.CHANNEL_MUTATION),
    Operation("list_members", "GET", f"{_ONE}/members", list_members, "chat:read", limits.CHANNEL_READ),
    Operation("add_members", "POST", f"{_ONE}/members", add_members, "chat:write", limits.CHANNEL_MUTATION),
    Operation("change_role", "PATCH", f"{_ONE}/members/{{user}}", change_role, "chat:write", limits.CHANNEL_MUTATION),
    Operation(
        "remove_member", "DELETE", f"{_ONE}/members/{{user}}", remove_member, "chat:write", limits.CHANNEL_MUTATION
    ),
    Operation("typing", "POST", f"{_ONE}/typing", typing, "typing:write", limits.TYPING),
    Operation("read", "POST", f"{_ONE}/read", read, "chat:write", limits.CHANNEL_MUTATION),
    Operation("star", "PATCH", f"{_ONE}/star", star, "chat:write", limits.CHANNEL_MUTATION),
    Operation("mute", "PATCH", f"{_ONE}/mute", mute, "chat:write", limits.CHANNEL_MUTATION),
    Operation("read_status", "GET", f"{_ONE}/receipts/read-status", read_status, "chat:read"),
    Operation("read_status_too", "GET", f"{_ONE}/read/read-status", read_status, "chat:read"),
    Operation("channel_presence", "GET", f"{_ONE}/presence", presence, "chat:read"),
)
