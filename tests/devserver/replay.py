"""Replaying recorded exchanges against a server, and comparing its answers with the recorded ones.

What must be equal: status, keys, types, and every value but those that cannot be: ids and tokens are bound to the first
value met in their place and must then stay the same, times must be times, and texts meant for people may differ.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from chatsdk.devserver.process import DevServer

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "http-transcripts.jsonl"
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
TOKEN = re.compile(r"<[a-z]+-token-\d+>\Z")
FREE_TEXTS = {"hint", "suggestion", "requestId", "apiKey", "warning"}
"""Keys whose text is for people, or made up for each answer: only its being a text is compared."""
FREE_NUMBERS = {"uptime", "processingTimeMs"}
HEADERS = ("location", "retry-after", "traceparent", "access-control-allow-origin", "access-control-allow-methods")


def scenarios() -> dict[str, dict[str, Any]]:
    """The recorded scenarios by name."""
    with TRANSCRIPTS.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return {each["scenario"]: each for each in found if each["scenario"] != "about"}


def unfolded(value: Any) -> Any:
    """A recorded value with `{"$repeat": [text, n]}` written out."""
    if isinstance(value, dict):
        if set(value) == {"$repeat"}:
            text, times = value["$repeat"]
            return text * times
        return {key: unfolded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unfolded(item) for item in value]
    return value


@dataclass
class Answer:
    """What the server under test said."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Comparer:
    """Compares answers of one scenario. `bound`: recorded id, time or token to the one that stands for it here."""

    bound: dict[str, str] = field(default_factory=dict)

    def compare(self, recorded: Any, actual: Any, ignored: tuple[str, ...] = ()) -> list[str]:
        """The differences between two bodies, as sentences; empty where there are none."""
        differences: list[str] = []
        self._compare(unfolded(recorded), actual, "", ignored, differences)
        return differences

    def _compare(self, recorded: Any, actual: Any, path: str, ignored: tuple[str, ...], out: list[str]) -> None:
        name = path.rpartition(".")[2]
        if path in ignored:
            return
        if name in FREE_TEXTS and isinstance(recorded, str):
            if not isinstance(actual, str):
                out.append(f"{path}: {actual!r} is no text")
        elif name in FREE_NUMBERS:
            if isinstance(actual, bool) or not isinstance(actual, int | float):
                out.append(f"{path}: {actual!r} is no number")
        elif isinstance(recorded, dict) and isinstance(actual, dict):
            for key in recorded.keys() | actual.keys():
                inner = f"{path}.{key}" if path else key
                if inner in ignored:
                    continue
                if key not in actual or key not in recorded:
                    out.append(f"{inner}: {'missing' if key not in actual else 'not in the recording'}")
                else:
                    self._compare(recorded[key], actual[key], inner, ignored, out)
        elif isinstance(recorded, list) and isinstance(actual, list):
            if len(recorded) != len(actual):
                out.append(f"{path}: {len(actual)} items, recorded {len(recorded)}")
            for one, other in zip(recorded, actual, strict=False):
                self._compare(one, other, f"{path}[]", ignored, out)
        elif isinstance(recorded, str) and isinstance(actual, str):
            self._compare_text(recorded, actual, path, out)
        elif type(recorded) is not type(actual) or recorded != actual:
            out.append(f"{path}: {actual!r}, recorded {recorded!r}")

    def _compare_text(self, recorded: str, actual: str, path: str, out: list[str]) -> None:
        if TIME.match(recorded):
            if not TIME.match(actual):
                out.append(f"{path}: {actual!r} is no time")
            self.bound[recorded] = actual
            return
        if TOKEN.match(recorded):
            self.bound[recorded] = actual
            if actual.count(".") != 2:
                out.append(f"{path}: {actual!r} is no token")
            return
        ours, theirs = UUID.findall(actual), UUID.findall(recorded)
        if UUID.sub("#", recorded) != UUID.sub("#", actual):
            out.append(f"{path}: {actual!r}, recorded {recorded!r}")
        for one, other in zip(theirs, ours, strict=False):
            if self.bound.setdefault(one.lower(), other) != other:
                out.append(f"{path}: {other} stands where {self.bound[one.lower()]} stood before")


@dataclass
class Player:
    """Sends the recorded requests of one scenario to a server."""

    server: DevServer
    comparer: Comparer = field(default_factory=Comparer)
    unscoped: dict[str, str] = field(default_factory=dict)
    """Recorded tokens in whose place one without scopes is sent, with their users."""

    def play(self, request: dict[str, Any]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            path = self._mapped(request["path"])
            connection.request(request["method"], path, self._body(request), self._headers(request["headers"]))
            answer = connection.getresponse()
            raw = answer.read()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            is_json = raw and headers.get("content-type", "").startswith("application/json")
            return Answer(answer.status, headers, json.loads(raw) if is_json else raw.decode() or None)
        finally:
            connection.close()

    def play_at_once(self, requests: list[dict[str, Any]]) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(requests)

        def one(position: int) -> None:
            answers[position] = self.play(requests[position])

        threads = [threading.Thread(target=one, args=(position,)) for position in range(len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return [answer for answer in answers if answer is not None]

    def with_ids(self, text: str, ids: dict[str, str]) -> str:
        """The text with these ids in the place of those."""
        for recorded, actual in ids.items():
            text = text.replace(recorded, actual)
        return text

    def _mapped(self, text: str) -> str:
        text = UUID.sub(lambda match: self._id(match[0]), text)
        for recorded, actual in self.comparer.bound.items():
            if TIME.match(recorded) and (quoted := recorded.replace(":", "%3A")) in text:
                text = text.replace(quoted, actual.replace(":", "%3A"))
        return text

    def _id(self, recorded: str) -> str:
        actual = self.comparer.bound.get(recorded.lower(), recorded.lower())
        return actual.upper() if recorded.isupper() else actual

    def _body(self, request: dict[str, Any]) -> bytes | None:
        if "raw_body" in request:
            raw = request["raw_body"]
            return base64.b64decode(raw["$base64"]) if isinstance(raw, dict) else raw.encode("utf-8", "surrogatepass")
        if "body" not in request:
            return None
        body = self._filled(unfolded(request["body"]))
        return json.dumps(body).encode()

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, str):
            return self.comparer.bound.get(value) or (value if len(value) > 1000 else UUID.sub(self._found, value))
        return value

    def _found(self, match: re.Match[str]) -> str:
        return self._id(match[0])

    def _headers(self, recorded: dict[str, Any]) -> dict[str, str]:
        headers = {}
        for name, value in unfolded(recorded).items():
            if not isinstance(value, dict):
                headers[name] = value
            elif "$bearer" in value:
                headers[name] = "Bearer " + self._signed(**value["$bearer"])
            elif value.get("$use") in self.unscoped:
                headers[name] = "Bearer " + self._signed(self.unscoped[value["$use"]], None, 900)
            elif "$use" in value:
                headers[name] = "Bearer " + self.comparer.bound[value["$use"]]
            else:
                headers[name] = self.server.api_key
        return headers

    def _signed(
        self,
        user: str,
        scopes: list[str] | str | None,
        ttl: int,
        app: str | None = None,
        claims: dict[str, Any] | None = None,
    ) -> str:
        now = int(time.time() + self.server.state()["clock_skipped_s"])
        extra = dict(claims or {})
        secret = "another secret of sufficient length" if extra.pop("$secret", None) else self.server.secret
        for name in ("iat", "nbf"):
            if name in extra:
                extra[name] += now
        made = {
            "sub": f"{app or self.server.app_id}:{user}",
            "user_id": user,
            "app_id": app or self.server.app_id,
            "type": "access",
            "iss": "chatsdk-api",
            "aud": "chatsdk-client",
            "iat": now,
            "nbf": now,
            "exp": now + ttl,
            "scopes": scopes,
            **extra,
        }
        kept = {name: value for name, value in made.items() if value is not None}
        return jwt.encode(kept, secret, "HS256", headers={"kid": "local-dev-key"})
