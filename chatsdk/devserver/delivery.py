"""Carrying out a fault: each kind, as its victim sees it on the wire.

Rules: a delivery gets the answer that an undisturbed request would have got (None where the request was not
processed), and does exactly one thing with it. Waiting here is waiting on the wire's clock, and ends when the caller
hangs up.
"""

from __future__ import annotations

import asyncio
import functools
import json
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from chatsdk.devserver import gate, wire
from chatsdk.devserver.answers import Answer, thrown
from chatsdk.devserver.faults import Fault
from chatsdk.devserver.handlers.auth import refresh_refused

DEFAULT_SIZE = 64 * 1024 * 1024
"""Bytes of a huge body or of an unpacked gzip bomb."""
DEFAULT_HOLD_S = 3600.0
_CHUNK = 64 * 1024
_PORTAL = "<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>Sign in to this network</h1></body></html>"


@dataclass(frozen=True)
class Wire:
    """The three ends of one ASGI request, and how a true answer is written."""

    scope: Scope
    receive: Receive
    send: Send
    encode: Callable[[Answer], tuple[int, dict[str, str], bytes]]

    async def answer(self, answer: Answer) -> None:
        status, headers, body = self.encode(answer)
        await self.raw(status, headers, body)

    async def raw(self, status: int, headers: dict[str, str], body: bytes) -> None:
        await self.start(status, {**headers, "content-length": str(len(body))})
        await self.send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: dict[str, str]) -> None:
        listed = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": listed})


async def deliver(fault: Fault, operation: str, answer: Answer | None, out: Wire) -> None:
    """Breaks one answer. `answer` is what processing made, None where the request was not processed."""
    await _DELIVERIES[fault.kind](fault.arguments, operation, answer, out)


async def _close(_: Any, __: str, ___: Answer | None, out: Wire) -> None:
    wire.transport_of(out.scope).close()
    await wire.gone(out.receive)


async def _reset(_: Any, __: str, ___: Answer | None, out: Wire) -> None:
    wire.reset(wire.transport_of(out.scope))
    await wire.gone(out.receive)


async def _stall(rule: Any, operation: str, answer: Answer | None, out: Wire) -> None:
    """Silence, then the end."""
    try:
        await asyncio.wait_for(wire.gone(out.receive), rule.get("hold_s", DEFAULT_HOLD_S))
    except TimeoutError:
        await _close(rule, operation, answer, out)


async def _truncated(rule: Any, _: str, answer: Answer | None, out: Wire) -> None:
    """Promises the whole body, sends a part of it (`keep`, 0 to 1, or so many bytes) and closes."""
    status, headers, body = out.encode(answer or Answer(200, {"ok": True}))
    keep = rule.get("keep", 0.5)
    sent = body[: int(keep if keep > 1 else keep * len(body))][: max(0, len(body) - 1)]
    transport = wire.transport_of(out.scope)
    transport.write(wire.head(status, headers, len(body)) + sent)
    await _close(rule, _, answer, out)


async def _drip(rule: Any, _: str, answer: Answer | None, out: Wire) -> None:
    """One byte at a time."""
    status, headers, body = out.encode(answer or Answer(200, {"ok": True}))
    await out.start(status, {**headers, "content-length": str(len(body))})
    left = asyncio.ensure_future(wire.gone(out.receive))
    try:
        for position in range(len(body)):
            await out.send({"type": "http.response.body", "body": body[position : position + 1], "more_body": True})
            if await _finished_within(left, rule.get("interval_s", 1.0)):
                return
        await out.send({"type": "http.response.body", "body": b""})
    finally:
        left.cancel()


async def _finished_within(future: asyncio.Future[None], seconds: float) -> bool:
    done, _ = await asyncio.wait((future,), timeout=seconds)
    return bool(done)


async def _status(rule: Any, _: str, __: Answer | None, out: Wire) -> None:
    status = int(rule["status"])
    headers = {str(name).lower(): str(value) for name, value in (rule.get("headers") or {}).items()}
    if (wait := rule.get("retry_after")) is not None:
        headers["retry-after"] = str(wait)
    body = rule.get("body")
    if isinstance(body, str):
        await out.raw(status, {"content-type": "text/plain; charset=utf-8", **headers}, body.encode())
        return
    await out.answer(Answer(status, _usual_body(status, wait) if body is None else body, headers))


def _usual_body(status: int, wait: Any) -> Any:
    if status == 429:
        return {"error": {"code": "RATE_LIMITED", "message": "Rate limit exceeded", "retryAfter": wait}}
    if status in (204, 304):
        return None
    codes = {500: "INTERNAL_ERROR", 503: "RATE_LIMIT_UNAVAILABLE"}
    return {"error": {"message": f"Injected fault {status}", "code": codes.get(status, "ERROR"), "requestId": None}}


async def _html(rule: Any, _: str, __: Answer | None, out: Wire) -> None:
    """A captive portal: it was not the server who answered."""
    await out.raw(200, {"content-type": "text/html; charset=utf-8"}, str(rule.get("body", _PORTAL)).encode())


async def _garbage(rule: Any, _: str, __: Answer | None, out: Wire) -> None:
    await out.raw(200, {"content-type": "application/json"}, str(rule.get("body", '{"id": "0", "seq": ')).encode())


async def _huge(rule: Any, _: str, __: Answer | None, out: Wire) -> None:
    """A large JSON text: {"padding": "aaaa..."}."""
    size = int(rule.get("size", DEFAULT_SIZE))
    before, after = b'{"padding": "', b'"}'
    await out.start(200, {"content-type": "application/json", "content-length": str(len(before) + size + len(after))})
    await out.send({"type": "http.response.body", "body": before, "more_body": True})
    transport, chunk = wire.transport_of(out.scope), b"a" * _CHUNK
    for position in range(0, size, _CHUNK):
        if transport.is_closing():
            return
        await out.send({"type": "http.response.body", "body": chunk[: size - position], "more_body": True})
    await out.send({"type": "http.response.body", "body": after})


async def _gzip_bomb(rule: Any, _: str, __: Answer | None, out: Wire) -> None:
    bomb = _bomb(int(rule.get("size", DEFAULT_SIZE)))
    await out.raw(200, {"content-type": "application/json", "content-encoding": "gzip"}, bomb)


@functools.lru_cache(maxsize=2)
def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: with a gzip header
    parts = [packer.compress(b'{"padding": "')]
    block = b"a" * _CHUNK
    parts += [packer.compress(block[: size - position]) for position in range(0, size, _CHUNK)]
    return b"".join([*parts, packer.compress(b'"}'), packer.flush()])


async def _redirect(rule: Any, _: str, __: Answer | None, out: Wire) -> None:
    location = str(rule.get("location", "http://portal.invalid/login"))
    await out.raw(int(rule.get("status", 302)), {"location": location}, b"")


async def _unauthorized(_: Any, operation: str, __: Answer | None, out: Wire) -> None:
    """A good token is called bad, as the real server does while its database is busy (contract, 15.1)."""
    if operation in ("refresh", "legacy_refresh"):
        await out.answer(refresh_refused("INVALID_REFRESH_TOKEN", "Invalid refresh token").answer)
    else:
        await out.answer(thrown(401, "Invalid token", gate.INVALID_HINT).answer)


async def _expired(_: Any, __: str, ___: Answer | None, out: Wire) -> None:
    await out.answer(gate.expired().answer)


_DELIVERIES: dict[str, Callable[[Any, str, Answer | None, Wire], Awaitable[None]]] = {
    "drop": _close,
    "reset": _reset,
    "stall": _stall,
    "reply_lost": _close,
    "truncated": _truncated,
    "drip": _drip,
    "status": _status,
    "html": _html,
    "garbage": _garbage,
    "huge": _huge,
    "gzip_bomb": _gzip_bomb,
    "redirect": _redirect,
    "unauthorized": _unauthorized,
    "expire_tokens": _expired,
}


def json_bytes(body: Any, *, pretty: bool = False) -> bytes:
    """An answer's body as it goes over the wire."""
    if pretty:
        return json.dumps(body, ensure_ascii=False, indent=2).encode()
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
