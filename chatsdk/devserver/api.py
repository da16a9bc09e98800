"""One HTTP request from its first byte to its last: the ASGI application.

The order is the contract's (sections 1 and 15.41): the whole body is read; a fault may strike; then token and scope,
rate limit, body checks, the handler. Who says how long he waits (X-Request-Timeout) and has gone by then gets 408, and
nothing is done. Every answer carries the request id. Handlers are plain functions and run on the
event loop: a request is processed in one go, so of parallel repeats of a key exactly one is stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from chatsdk.devserver import gate, tokens
from chatsdk.devserver.answers import INTERNAL_ERROR, NOT_FOUND, Answer, ApiError, thrown
from chatsdk.devserver.checks import waits_until
from chatsdk.devserver.delivery import Wire, deliver, json_bytes
from chatsdk.devserver.faults import HARMLESS, Facts, Verdict
from chatsdk.devserver.handlers import auth, centrifugo_api, channels, control, messages, people, realtime
from chatsdk.devserver.ids import canonical_uuid
from chatsdk.devserver.routes import Operation, RouteTable
from chatsdk.devserver.settings import is_loopback
from chatsdk.devserver.world import Call, World

logger = logging.getLogger(__name__)

OPERATIONS: tuple[Operation, ...] = (
    *messages.OPERATIONS,
    *channels.OPERATIONS,
    *auth.OPERATIONS,
    *people.OPERATIONS,
    *realtime.OPERATIONS,
    *control.OPERATIONS,
    *centrifugo_api.OPERATIONS,
)
BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of a request's body. The original has no limit (15.39); this one only protects the machine."""
HEAD_LIMIT = 16 * 1024
"""Bytes of a request's headers, as on the original (15.39)."""
_CORS = {
    "access-control-allow-headers": "Content-Type, Authorization, X-API-Key, X-Request-ID, traceparent",
    "access-control-allow-methods": "GET, POST, PUT, DELETE, PATCH, OPTIONS",
}
# An unknown /api route asks for a token before it is told to be unknown.
_UNKNOWN = Operation("unknown", "", "", lambda _call: NOT_FOUND)
_UNKNOWN_PUBLIC = Operation("unknown", "", "", lambda _call: NOT_FOUND, public=True)
_LONG_HEAD = Operation("long_head", "", "", lambda _call: Answer(431, headers={"connection": "close"}), public=True)
_TOO_LARGE = Operation("too_large", "", "", lambda _call: Answer(413, headers={"connection": "close"}), public=True)
_PREFLIGHT = Operation("preflight", "", "", lambda _call: Answer(204), public=True)


class HttpApi:
    """The application. `refuse` closes the door for so many seconds; it is called when such a rule was added."""

    def __init__(
        self, world: World, refuse: Callable[[float], None], operations: Iterable[Operation] = OPERATIONS
    ) -> None:
        self.world = world
        self.refuse = refuse
        self.table = RouteTable(operations)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived = time.monotonic()
        raw_body = await _read(receive)
        if raw_body is None:
            return
        call = self._call(scope, raw_body)
        call.until = waits_until(call.headers.get("x-request-timeout"), arrived)
        if len(raw_body) > BODY_LIMIT:
            call.operation, call.params = _TOO_LARGE, {}
        elif sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_LIMIT:
            call.operation, call.params = _LONG_HEAD, {}
        out = Wire(scope, receive, send, lambda answer: self._encode(call, answer))
        verdict = self._judge(call)
        fault = verdict.fault
        if fault is not None:
            call.fault = fault.kind
        seen = self.world.recent.begin(call, scope["method"], scope["raw_path"].decode("latin-1"))
        if verdict.before:
            await asyncio.sleep(verdict.before)
        answer = None
        if fault is None or fault.processed:
            answer = self._process(call)
            seen["status"] = answer.status
        elif call.operation.sends:
            self.world.log.record(call.attempt(self._claimed_user(call)), None, None)
        if verdict.after:
            await asyncio.sleep(verdict.after)
        if fault is not None:
            await deliver(fault, call.operation.name, answer, out)
        else:
            assert answer is not None
            await out.answer(answer)
            if call.operation.name == "dev_add_fault" and answer.status == 201 and answer.body["kind"] == "refuse":
                self.refuse(answer.body["for_s"])  # only now: whoever closed the door has had the answer

    def _call(self, scope: Scope, raw_body: bytes) -> Call:
        world = self.world
        world.requests += 1
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        path = scope["raw_path"].decode("latin-1")
        matched = self.table.match(method, path)
        params: Mapping[str, str] = {}
        if matched is not None:
            operation, params = matched
        elif method == "OPTIONS":
            operation = _PREFLIGHT
        else:
            operation = _UNKNOWN if path == "/api" or path.startswith("/api/") else _UNKNOWN_PUBLIC
        if operation.sends:
            world.ordinal += 1
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        return Call(
            world=world,
            operation=operation,
            params=params,
            query_string=scope["query_string"].decode("latin-1"),
            headers=headers,
            raw_body=raw_body,
            address=scope["client"][0] if scope.get("client") else "",
            ordinal=world.ordinal,
        )

    def _judge(self, call: Call) -> Verdict:
        if not self.world.faults.rules or call.operation.path.startswith(control.PREFIX):
            return HARMLESS
        claims = self._claims(call)
        issued = claims.get("iat")
        attempt = call.attempt(None)
        channel = call.params.get("channel")
        try:
            text = call.body.get("text") if isinstance(call.body, dict) else None
        except ApiError:
            text = None
        facts = Facts(
            operation=call.operation.name,
            user=claims.get("user_id"),
            channel=None if channel is None else canonical_uuid(channel) or attempt.channel,
            text=text if isinstance(text, str) else None,
            issued=None if call.operation.public or not isinstance(issued, int) else issued,
            jti=claims.get("jti"),
        )
        return self.world.faults.judge(facts, time.monotonic())

    def _claims(self, call: Call) -> Mapping[str, Any]:
        token = gate.bearer(call)
        return {} if token is None else tokens.peek(token)

    def _claimed_user(self, call: Call) -> str | None:
        user = self._claims(call).get("user_id")
        return user if isinstance(user, str) else None

    def _process(self, call: Call) -> Answer:
        hub = self.world.hub
        try:
            answer = self._handle(call)
            hub.flush()
        except ApiError as error:
            hub.discard()
            answer = error.answer
        except Exception:
            hub.discard()
            said = {"correlation_id": call.headers.get("x-request-id", "")}
            logger.exception("%s failed", call.operation.name, extra=said)
            answer = INTERNAL_ERROR
        if call.operation.sends and not call.attempt_recorded:
            self.world.log.record(call.attempt(call.user or self._claimed_user(call)), "rejected", answer.status)
        return answer

    def _handle(self, call: Call) -> Answer:
        operation, world = call.operation, self.world
        if operation.path.startswith(control.PREFIX):
            control.check_caller(call)
        elif call.until is not None and time.monotonic() >= call.until:
            raise thrown(408, "The time that the caller gave is over", "Nothing was done; ask again with more time")
        if not operation.public:
            gate.admit(call)
        if operation.limit is not None and world.settings.rate_limits:
            key = [call.user, call.address]
            if operation.limit.by_channel:
                key.append(call.params.get("channel", "").lower())
            call.answer_headers.update(world.limits.take(operation.limit, tuple(key), world.clock.seconds()))
        return operation.handler(call)

    def _encode(self, call: Call, answer: Answer) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body as they go out; length and framing are the transport's business."""
        request_id = call.headers.get("x-request-id") or str(uuid.uuid4())
        headers = {"content-type": "application/json", "x-request-id": request_id}
        if "traceparent" in call.headers:
            headers["traceparent"] = call.headers["traceparent"]
        if call.operation is _PREFLIGHT or "origin" in call.headers:
            headers.update(_cors(call.headers.get("origin", ""), call.operation))
        headers.update(call.answer_headers)
        headers.update(answer.headers)
        body = answer.body
        if body is None:
            return answer.status, headers, b""
        if isinstance(body, dict) and isinstance(body.get("error"), dict) and "requestId" in body["error"]:
            body = {**body, "error": {**body["error"], "requestId": request_id}}
        pretty = "pretty" in call.query_string and "pretty" in call.query
        return answer.status, headers, json_bytes(body, pretty=pretty)


def _cors(origin: str, operation: Operation) -> dict[str, str]:
    """Pages of this machine may call the API; the control routes are for no page at all."""
    host = urlsplit(origin).hostname
    if operation.path.startswith(control.PREFIX):
        return {}
    if host is None or not is_loopback(host):
        return dict(_CORS)
    return {**_CORS, "access-control-allow-origin": origin, "access-control-allow-credentials": "true"}


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None where the caller hung up before its end: such a request never reached the server.

    Of a body over the limit only the beginning, one part longer than the limit.
    """
    gathered = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        gathered += message.get("body", b"")
        if not message.get("more_body") or len(gathered) > BODY_LIMIT:
            return bytes(gathered)
