"""The realtime side of a development server for Python programs: `DevServer.realtime`. Standard library only.

Two sorts of switches. Some act now and are over: `cut`, `half_open`, `garbage`, `oversized`, `epoch_reset`; they return
how many connections (or streams) they struck. The others are rules that stand until they are used up or cleared: they
return the rule's id, and take what every rule takes: `times` (how often), `for_s` (how long), `probability` with
`seed`, `every` (each n-th), and where it makes sense `user`, `channel` (a channel's id or a whole stream), `operation`
(an event's type, such as "message.new"), `text_contains`.

Publications are broken at one of two places. By default on their way to the clients: the stream has them, offsets show
what is missing. With `queue=True` before their stream has them, as the real server's own event queue loses, repeats,
delays and reorders: offsets show nothing, only the messages' seq does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class RealtimeSwitches:
    """`control(method, path, body)` is a request to `/__dev__/`."""

    def __init__(self, control: Callable[[str, str, Any], Any]) -> None:
        self._control = control

    # At once

    def cut(self, user: str | None = None, *, how: str = "rst", code: int | None = None, reason: str = "") -> int:
        """Ends all connections, or a user's: `how` rst or fin, without a close frame; with `code` by one."""
        wish = {"how": how} if code is None else {"code": code, "reason": reason}
        return self._now("ws_cut", user=user, **wish)

    def half_open(self, user: str | None = None) -> int:
        """Connections stay open and nothing happens on them any more, in either direction."""
        return self._now("ws_half_open", user=user)

    def garbage(self, frame: str | bytes | None = None, user: str | None = None) -> int:
        """A text frame with this text (by default no JSON), or these very bytes on the wire: no frame at all."""
        wish = {"hex": frame.hex()} if isinstance(frame, bytes) else {"text": frame}
        return self._now("ws_garbage", user=user, **wish)

    def oversized(self, size: int = 16 * 1024 * 1024, user: str | None = None) -> int:
        """A text frame of so many bytes, valid JSON."""
        return self._now("ws_oversized", user=user, size=size)

    def epoch_reset(self, channel: str | None = None, *, tell: bool = True) -> int:
        """Streams (or a channel's, by its id or the whole name) start over: new epoch, no history; returns how many.
        Clients that count on a position get the push `unsubscribe` 2500; with `tell=False` they have to notice."""
        return self._now("epoch_reset", channel=channel, tell=tell)

    # Rules

    def refuse(self, status: int = 503, **rule: Any) -> int:
        """Upgrades are answered with an HTTP status. `operation`: websocket or ws."""
        return self._rule("ws_refuse", status=status, **rule)

    def silent(self, **rule: Any) -> int:
        """TCP connections are accepted, handshakes never answered."""
        return self._rule("ws_silent", **rule)

    def slow(self, bytes_per_s: float | None = None, *, ms: float | None = None, **rule: Any) -> int:
        """What is sent drips, or each write waits so many milliseconds."""
        return self._rule("ws_slow", bytes_per_s=bytes_per_s, ms=ms, **rule)

    def no_pong(self, **rule: Any) -> int:
        """No heartbeat of any kind: no pongs on `/ws`, no pings on Centrifugo's, no WebSocket pongs."""
        return self._rule("ws_no_pong", **rule)

    def drop(self, *, queue: bool = False, **rule: Any) -> int:
        """Publications are lost: `drop(every=5)`, `drop(times=3)`, `drop(text_contains="x")`."""
        return self._rule(_place("drop", queue), **rule)

    def duplicate(self, copies: int = 1, *, queue: bool = False, **rule: Any) -> int:
        """Publications come again."""
        return self._rule(_place("duplicate", queue), copies=copies, **rule)

    def reorder(self, window: int = 4, *, queue: bool = False, **rule: Any) -> int:
        """So many publications are gathered (for 0.2 s at most) and come shuffled."""
        return self._rule(_place("reorder", queue), window=window, **rule)

    def delay(self, ms: float, jitter_ms: float = 0.0, *, queue: bool = False, **rule: Any) -> int:
        """Publications come later; with jitter, out of order."""
        return self._rule(_place("delay", queue), ms=ms, jitter_ms=jitter_ms, **rule)

    # Centrifugo's API

    def api(self, method: str, **body: Any) -> Any:
        """A call of Centrifugo's HTTP API, such as `api("publish", channel=..., data=...)`; returns its answer."""
        return self._control("POST", f"centrifugo/{method}", body)

    def publish(self, stream: str, *data: Any) -> None:
        """Publishes to a stream, past the API; many in one transaction."""
        self.api("batch", commands=[{"publish": {"channel": stream, "data": each}} for each in data])

    def overview(self) -> dict[str, Any]:
        """`sockets`, `connections` (user, protocol, streams) and `streams` (offset, epoch)."""
        found: dict[str, Any] = self._control("GET", "realtime", None)
        return found

    def _now(self, kind: str, **wish: Any) -> int:
        return int(self._post(kind, wish)["fired"])

    def _rule(self, kind: str, **rule: Any) -> int:
        return int(self._post(kind, rule)["id"])

    def _post(self, kind: str, wish: dict[str, Any]) -> Any:
        given = {name: value for name, value in wish.items() if value is not None}
        return self._control("POST", "faults", {"kind": kind, **given})


def _place(what: str, queue: bool) -> str:
    return f"event_{what}" if queue else f"pub_{what}"
