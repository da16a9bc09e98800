"""A development server in a process of its own, driven from a test, a demo or a fixture. Standard library only.

Rules: the server dies with the process that started it, however that ends (it holds the other end of a pipe), unless
`die_with_parent=False`. Readiness is a line on a pipe, never a pause. `restart` takes the same port and the same data
file, so addresses, tokens, messages and idempotency keys stay good; a server in memory starts over, with new tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from chatsdk.devserver.realtime.switches import RealtimeSwitches

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
_CONTROL_TIMEOUT_S = 30.0


class ServerDidNotStart(RuntimeError):
    """The process ended or stayed silent before it was ready; its messages are on standard error."""


class ControlRefused(RuntimeError):
    """The server did not do what a switch was to do; `status` and its answer say why."""

    def __init__(self, status: int, answer: str) -> None:
        super().__init__(f"{status}: {answer}")
        self.status = status


class DevServer:
    """One server process.

    `data`: the SQLite file, or `:memory:`. `options` are those of the command line with underscores, such as
    `rate_limits=True` or `token_ttl=60`. `realtime` holds the switches of the realtime side. As a context manager it
    starts on entry and stops on exit.
    """

    def __init__(
        self, data: str | os.PathLike[str] = ":memory:", port: int = 0, *, die_with_parent: bool = True, **options: Any
    ) -> None:
        self.data, self.port = os.fspath(data), port
        self.die_with_parent, self.options = die_with_parent, options
        self.process: subprocess.Popen[str] | None = None
        self.url = self.api_key = self.channel_id = self.app_id = ""
        self.secret = self.ws_secret = ""
        self.tokens: dict[str, str] = {}
        self.ws_tokens: dict[str, str] = {}
        self.realtime = RealtimeSwitches(self.control)

    def __repr__(self) -> str:
        return f"DevServer({self.url or 'not started'}, data={self.data!r})"

    def __enter__(self) -> DevServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ws_url(self) -> str:
        """Where Centrifugo's protocol is spoken."""
        return f"ws{self.url.removeprefix('http')}/connection/websocket"

    @property
    def plain_url(self) -> str:
        """Where the plain JSON protocol is spoken."""
        return f"ws{self.url.removeprefix('http')}/ws"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    # Life

    def start(self) -> DevServer:
        """Starts the process and returns when it answers. Raises `ServerDidNotStart`."""
        if self.pid is not None:
            return self
        command = [sys.executable, "-m", "chatsdk.devserver", "--json", "--data", self.data, "--port", str(self.port)]
        for name, value in self.options.items():
            flag = "--" + name.replace("_", "-")
            command += [flag] if value is True else [] if value is False else [flag, str(value)]
        if self.die_with_parent:
            command.append("--exit-with-stdin")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if self.die_with_parent else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": _import_path(os.environ.get("PYTHONPATH"))},
            start_new_session=True,  # a Ctrl-C at the terminal is the caller's business
        )
        ready = json.loads(self._first_line(self.process))
        for name in ("url", "port", "api_key", "channel_id", "app_id", "secret", "ws_secret", "tokens", "ws_tokens"):
            setattr(self, name, ready[name])
        return self

    def kill(self) -> None:
        """SIGKILL: no good-bye to anybody."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Asks the server to end and waits; kills it where it does not."""
        self._signal(signal.SIGTERM)

    def restart(self) -> DevServer:
        """Stops the server if it still runs, and starts it again on the same port with the same data."""
        self.stop()
        return self.start()

    def _signal(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _first_line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        ends = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < ends:
            if select.select([process.stdout], [], [], 0.2)[0]:
                line = process.stdout.readline()
                if line:
                    return line
                break
        code = process.poll()
        self.kill()
        raise ServerDidNotStart(f"the development server did not start (exit code {code})")

    # Switches and windows

    def faults(self, kind: str, **rule: Any) -> int:
        """Adds a fault rule, such as `faults("status", operation="send", status=503, times=3)`; returns its id."""
        return int(self.control("POST", "faults", {"kind": kind, **rule})["id"])

    def fault_rules(self) -> list[dict[str, Any]]:
        """The rules, each with how often it was asked (`seen`) and has struck (`fired`)."""
        return list(self.control("GET", "faults")["faults"])

    def clear_faults(self, rule: int | None = None) -> None:
        """Removes one rule, or all."""
        self.control("DELETE", "faults" if rule is None else f"faults/{rule}")

    def log(self, since: int = 0, attempts_since: int = 0, limit: int = 100_000) -> dict[str, list[dict[str, Any]]]:
        """`messages`: what was accepted, in order (position, key, channel, user, text, seq, ordinal, at).
        `attempts`: every try to send (ordinal, at, operation, key, channel, user, outcome, result, status)."""
        query = urlencode({"since": since, "attempts_since": attempts_since, "limit": limit})
        found: dict[str, list[dict[str, Any]]] = self.control("GET", f"log?{query}")
        return found

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """The last 1000 requests after number `since`: number, operation, method, path, request_id, timeout (what the
        caller said in X-Request-Timeout), fault, status (None: not processed)."""
        found: list[dict[str, Any]] = self.control("GET", f"requests?since={since}")["requests"]
        return found

    def state(self) -> dict[str, Any]:
        """Counts of messages, tries by outcome, requests, and faults that have struck."""
        found: dict[str, Any] = self.control("GET", "state")
        return found

    def mint(
        self,
        user: str,
        ttl: float | None = None,
        scopes: Sequence[str] | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """An access token for a user, who is made if need be."""
        wanted = {"user": user, "ttl": ttl, "scopes": None if scopes is None else list(scopes), "claims": claims}
        given = {name: value for name, value in wanted.items() if value is not None}
        return str(self.control("POST", "token", given)["token"])

    def session(self, user: str, ttl: float = 900.0) -> dict[str, str]:
        """`token`, `refreshToken` and `wsToken` of a fresh session."""
        found: dict[str, str] = self.control("POST", "token", {"user": user, "ttl": ttl, "refresh": True})
        return found

    def subscription_token(self, stream: str, user: str, ttl: float = 900.0) -> str:
        """A token that opens one stream to a user, whoever may hear it by the API's rules."""
        wanted = {"user": user, "ttl": ttl, "claims": {"channel": stream}}
        return str(self.control("POST", "token", wanted)["wsToken"])

    def stream(self, channel: str | None = None) -> str:
        """The stream of a channel, by default of `general`."""
        return f"chat:{self.app_id}:{channel or self.channel_id}"

    def channel(self, *members: str, channel_id: str | None = None, kind: str = "group", name: str = "") -> str:
        """A channel with these members (made if need be; the first one owns it); returns its id."""
        wanted = {"members": list(members), "type": kind, "name": name, **({"id": channel_id} if channel_id else {})}
        return str(self.control("POST", "channel", wanted)["id"])

    def end_sessions(self, user: str, how: str = "revoke") -> None:
        """Ends a user's sessions: `revoke` or `expire`."""
        self.control("POST", "sessions", {"user": user, "how": how})

    def skip(self, seconds: float) -> None:
        """Lets time pass for tokens, rate limits and presence."""
        self.control("POST", "clock", {"skip_s": seconds})

    def reset(self) -> None:
        """Leaves only what every server starts with; secrets and logs stay. Sessions end, sessionless tokens do not."""
        self.control("POST", "reset")

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """A request to `/__dev__/`; returns the JSON answer. Raises `ControlRefused`."""
        request = urllib.request.Request(
            f"{self.url}/__dev__/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        # Without the environment's proxies: the server is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_CONTROL_TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise ControlRefused(error.code, error.read().decode("utf-8", "replace")) from None


def _import_path(inherited: str | None) -> str:
    """The path on which the child finds this very package, also in an uninstalled checkout."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *([inherited] if inherited else [])])
