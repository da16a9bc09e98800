"""`/__dev__/*`: the switches and windows of a development server, for tests, demos and people.

Rules: for callers on this machine only, whatever the server listens on, and not for web pages: a request that carries
`Origin`, or a Host that is not a loopback name (DNS rebinding), is refused. Faults never touch these routes.

    GET    /__dev__/state            counts, clock, and how often each kind of fault has struck
    GET    /__dev__/log              ?since=&attempts_since=&limit=   accepted messages and tries to send
    GET    /__dev__/requests         ?since=   the last requests: number, operation, method, path, request_id, timeout,
                                     fault, status (null: not processed)
    GET    /__dev__/faults           the rules; POST adds one (what acts at once is none), DELETE removes all
    DELETE /__dev__/faults/{id}      removes one
    POST   /__dev__/centrifugo/...   and GET /__dev__/realtime: see centrifugo_api.py
    POST   /__dev__/token            {"user", "ttl", "scopes", "name", "refresh", "claims"}: a token, the user is made
    POST   /__dev__/channel          {"id", "type", "name", "members"}: a channel, the first member owns it
    POST   /__dev__/sessions         {"user", "how": "expire" | "revoke"}: ends the user's sessions
    POST   /__dev__/clock            {"skip_s": n}: lets time pass for tokens, limits and presence
    POST   /__dev__/reset            only what every server starts with is left; secrets and logs stay, and with them
                                     the memory of idempotency keys
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from chatsdk.devserver.answers import SUCCESS, Answer, ok, refused, thrown
from chatsdk.devserver.checks import whole_number
from chatsdk.devserver.faults import BadRule
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.settings import ALL_SCOPES, is_loopback
from chatsdk.devserver.world import CONTROL, Call

PREFIX = CONTROL
_LOG_PAGE = 100_000


def check_caller(call: Call) -> None:
    """403 for everybody but programs on this machine."""
    host = call.headers.get("host", "localhost")
    name = host[: host.rfind(":")] if ":" in host.rpartition("]")[2] else host
    if not is_loopback(call.address) or "origin" in call.headers or not is_loopback(name):
        raise refused(403, "Only programs on the same machine may do this", "FORBIDDEN")


def state(call: Call) -> Answer:
    world = call.world
    return ok(
        {
            **world.log.counts(),
            "requests": world.requests,
            "ordinal": world.ordinal,
            "faults_struck": dict(world.faults.struck),
            "rules": len(world.faults.rules),
            "clock_skipped_s": world.clock.skipped,
            "uptime": world.clock.seconds() - world.started,
        }
    )


def log(call: Call) -> Answer:
    limit = whole_number(call.query.get("limit"), _LOG_PAGE, "limit", most=_LOG_PAGE)
    since = whole_number(call.query.get("since"), 0, "since")
    attempts_since = whole_number(call.query.get("attempts_since"), 0, "attempts_since")
    entries = call.world.log
    return ok({"messages": entries.messages(since, limit), "attempts": entries.attempts(attempts_since, limit)})


def requests(call: Call) -> Answer:
    since = whole_number(call.query.get("since"), 0, "since")
    return ok({"requests": [each for each in call.world.recent.requests if each["number"] > since]})


def list_faults(call: Call) -> Answer:
    now = time.monotonic()
    return ok({"faults": [rule.describe(now) for rule in call.world.faults.rules]})


def add_fault(call: Call) -> Answer:
    now = time.monotonic()
    try:
        rule = call.world.faults.add(_object(call), now, call.world.clock.seconds())
    except BadRule as error:
        raise thrown(400, str(error)) from None
    if rule.moment == "now":
        call.world.faults.struck_now(rule, call.world.hub.strike(rule))
    return Answer(201, rule.describe(now))


def clear_faults(call: Call) -> Answer:
    return ok({"removed": call.world.faults.remove()})


def remove_fault(call: Call) -> Answer:
    removed = call.world.faults.remove(whole_number(call.params["id"], 0, "id"))
    if not removed:
        raise refused(404, "No such rule")
    return ok({"removed": removed})


def token(call: Call) -> Answer:
    """A token made to order. `claims` adds or replaces claims, so that damaged tokens can be made as well."""
    form = call.form()
    user, name = form.string("user", required=True, least=1, most=255), form.string("name", most=255)
    ttl, scopes = form.number("ttl"), form.strings("scopes")
    with_refresh, claims = form.boolean("refresh"), form.mapping("claims")
    form.done()
    assert user is not None
    world = call.world
    world.people.upsert(user, name, None, {}, call.now)
    lifetime = world.settings.token_ttl if ttl is None else ttl
    granted = ALL_SCOPES if scopes is None else tuple(scopes)
    session = world.sessions.begin(user, call.now + int(world.settings.refresh_ttl * 1000)) if with_refresh else None
    made: dict[str, Any] = {
        "user": user,
        "token": world.mint(user, "access", lifetime, granted, session, claims),
        "wsToken": world.mint(user, "ws", lifetime, granted, session, claims),
        "expiresIn": int(lifetime),
    }
    if with_refresh:
        made["refreshToken"] = world.mint(user, "refresh", world.settings.refresh_ttl, granted, session)
    return ok(made)


def channel(call: Call) -> Answer:
    form = call.form()
    members = form.strings("members") or []
    given, kind, name = form.string("id", form="uuid"), form.string("type") or "group", form.string("name")
    form.done()
    if not members:
        raise refused(400, "A channel needs a member")
    world, made = call.world, (given or str(uuid.uuid4())).lower()
    with world.db.transaction():
        for member in members:
            if not world.people.exists(member):
                world.people.upsert(member, None, None, {}, call.now)
        if world.channels.find(made) is None:
            world.channels.create(kind, members[0], members[1:], call.now, channel=made, name=name)
    return ok(world.channels.own(made, members[0]))


def end_sessions(call: Call) -> Answer:
    form = call.form()
    user, how = form.string("user", required=True), form.choice("how", ("expire", "revoke"), required=True)
    form.done()
    ended = call.world.sessions.end(str(user), revoke=how == "revoke", now=call.now)
    if how == "revoke":
        call.world.hub.disconnect(str(user))
    return ok({"ended": ended})


def clock(call: Call) -> Answer:
    skip = _object(call).get("skip_s", 0)
    if isinstance(skip, bool) or not isinstance(skip, int | float) or skip < 0:
        raise thrown(400, "skip_s must be a number of at least 0")
    call.world.clock.skip(skip)
    call.world.hub.reschedule()
    return ok({"skipped_s": call.world.clock.skipped})


def reset(call: Call) -> Answer:
    world = call.world
    world.hub.reset()
    with world.db.transaction():
        world.db.forget()
        world.furnish()
    world.faults.remove()
    world.limits.buckets.clear()
    return SUCCESS


def _object(call: Call) -> dict[str, Any]:
    if not isinstance(call.body, dict):
        raise thrown(400, "The body must be a JSON object")
    return call.body


OPERATIONS = (
    Operation("dev_state", "GET", f"{PREFIX}state", state, public=True),
    Operation("dev_log", "GET", f"{PREFIX}log", log, public=True),
    Operation("dev_requests", "GET", f"{PREFIX}requests", requests, public=True),
    Operation("dev_faults", "GET", f"{PREFIX}faults", list_faults, public=True),
    Operation("dev_add_fault", "POST", f"{PREFIX}faults", add_fault, public=True),
    Operation("dev_clear_faults", "DELETE", f"{PREFIX}faults", clear_faults, public=True),
    Operation("dev_remove_fault", "DELETE", f"{PREFIX}faults/{{id}}", remove_fault, public=True),
    Operation("dev_token", "POST", f"{PREFIX}token", token, public=True),
    Operation("dev_channel", "POST", f"{PREFIX}channel", channel, public=True),
    Operation("dev_sessions", "POST", f"{PREFIX}sessions", end_sessions, public=True),
    Operation("dev_reset", "POST", f"{PREFIX}reset", reset, public=True),
    Operation("dev_clock", "POST", f"{PREFIX}clock", clock, public=True),
)
