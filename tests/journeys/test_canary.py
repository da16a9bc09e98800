"""No byte of any token in any sink: outbox file, logs at DEBUG, events, reprs, errors, tracebacks, output.

A client with every kind of token lives through sending, refreshes, errors of every kind and a lost session; then all
that came out is searched for the parts of each token that it ever had. Only the pair file under tokens/ holds them.
"""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest

from chatsdk import ChatClient, ChatError, State, Token, TokenRequest, events
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

FAULTS = ("status", "html", "garbage", "redirect", "truncated", "reply_lost", "reset", "unauthorized")


def parts(*tokens: str) -> set[str]:
    """What would give a token away: all of it, its claims, its signature. (All tokens begin with one same header.)"""
    return {part for token in tokens for part in (token, *token.split(".")[1:])}


def tokens(session: dict[str, str]) -> set[str]:
    """The three tokens of a session."""
    return {session[name] for name in ("token", "refreshToken", "wsToken")}


def reachable(start: Any, limit: int = 100_000) -> Iterator[Any]:
    """The SDK's own objects that can be reached from one by attributes and items, each once."""
    seen: set[int] = set()
    waiting = [start]
    while waiting and len(seen) < limit:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, (str, bytes, int, float, ModuleType, type)):
            continue
        seen.add(id(found))
        if type(found).__module__.startswith("chatsdk"):
            yield found
        if isinstance(found, dict):
            waiting += [*found, *found.values()]
        elif isinstance(found, (list, tuple, set, frozenset)):
            waiting += found
        elif isinstance(found, MethodType):
            waiting.append(found.__self__)
        elif isinstance(found, FunctionType):
            waiting += [cell.cell_contents for cell in found.__closure__ or () if _filled(cell)]
        else:
            waiting += list(getattr(found, "__dict__", {}).values())
            slots = [name for cls in type(found).__mro__ for name in getattr(cls, "__slots__", ())]
            waiting += [getattr(found, name, None) for name in slots]


def _filled(cell: Any) -> bool:
    try:
        return bool(cell.cell_contents is not None)
    except ValueError:
        return False


class Sink:
    """Collects whatever came out."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.errors: list[str] = []

    def add(self, *things: Any) -> None:
        """What these things show of themselves."""
        self.texts += [shown for thing in things for shown in (str(thing), repr(thing))]

    def event(self, event: events.Event) -> None:
        """An event, also as JSON."""
        self.add(event)
        self.texts.append(json.dumps(event.to_dict(), default=repr))

    def attempt(self, act: Callable[[], Any]) -> Any:
        """Do it; if it raises, keep all that the error can say, also after a pickle."""
        try:
            return act()
        except ChatError as error:
            self.add(error, error.to_dict(), vars(error), pickle.loads(pickle.dumps(error)))
            self.texts += traceback.format_exception(error)
            self.errors.append(type(error).__name__)

    def check(self, secrets: set[str]) -> None:
        """No secret in any of it."""
        assert self.texts
        found = [(secret[:12], text[:200]) for text in self.texts for secret in secrets if secret in text]
        assert found == []


def test_the_search_finds_what_is_there(server: DevServer) -> None:
    """The checks below can fail."""
    token = server.mint("alice")
    sink = Sink()
    sink.add({"Authorization": f"Bearer {token}"})
    with pytest.raises(AssertionError):
        sink.check(parts(token))
    assert any(token == found.reveal() for found in reachable({"a": [(Token(token),)]}) if hasattr(found, "reveal"))


def test_no_token_comes_out_of_a_clients_life(
    server: DevServer,
    connect: Callable[..., ChatClient],
    state_dir: Path,
    channel: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Access, refresh, websocket and provider tokens, through everything that can be done and go wrong."""
    caplog.set_level(logging.DEBUG)
    sink = Sink()
    session = server.session("alice")
    secrets = tokens(session)

    def provide(wanted: TokenRequest) -> str:
        token = server.mint(wanted.user)
        secrets.add(token)
        return token

    chat = connect(
        token=session["token"],
        refresh_token=session["refreshToken"],
        ws_token=session["wsToken"],
        user="alice",
        token_provider=provide,
        timeout=2,
        retry_tries=2,
    )
    chat.on(events.Event, sink.event)
    bob = chat.as_user("bob")
    receipts = [sink.attempt(lambda: chat.send(channel, "hello")), sink.attempt(lambda: bob.send(channel, "hello"))]
    before = server.faults("expire_tokens", operation=["send", "get_channel"])
    receipts.append(sink.attempt(lambda: chat.send(channel, "after a refresh")))
    sink.attempt(lambda: chat.channels.get(channel, fresh=True))
    server.clear_faults(before)
    for kind in FAULTS:
        rule = server.faults(kind, **({"status": 500} if kind == "status" else {}))
        sink.attempt(lambda: chat.channels.get(channel, fresh=True))
        receipts.append(sink.attempt(lambda kind=kind: chat.send(channel, kind, wait=0.2)))  # type: ignore[misc]
        server.clear_faults(rule)
    chat.circuits["api"].reset()
    for wrong in ((channel, ""), ("general", "text"), (channel, "\ud800")):
        sink.attempt(lambda wrong=wrong: chat.send(*wrong))  # type: ignore[misc]
    sink.attempt(lambda: chat.messages.get(channel, channel))
    sink.attempt(lambda: chat.send(server.channel("bob"), "not a member"))
    sink.attempt(lambda: connect(server.url + "?token=" + session["token"]))
    sink.attempt(lambda: connect(timeout=session["token"]))
    chat.circuits["api"].reset()
    chat.outbox.flush(10)
    mine = [receipt for receipt in receipts if receipt is not None]
    assert {receipt.wait(10).state for receipt in mine} == {State.SENT}
    sink.add(*mine, *(receipt.to_dict() for receipt in mine), *(receipt.error for receipt in mine))
    secrets |= _kept(state_dir)
    assert len(secrets) > 5, "the refresh left no new pair"
    sink.add(chat.settings, vars(chat.settings), chat.plugins(), chat.outbox.stats(), *reachable(chat), *reachable(bob))
    chat.close()
    sink.add(*reachable(chat))
    sink.texts += [caplog.text, *(str(vars(record)) for record in caplog.records), *capfd.readouterr()]
    assert {"InvalidMessage", "MessageRejected", "SettingsError", "NotFound"} <= set(sink.errors), sink.errors
    assert len(sink.texts) > 300
    sink.check(parts(*secrets))
    for file, content in _files(state_dir):
        assert not [secret[:12] for secret in parts(*secrets) if secret.encode() in content], file


def test_files_hold_no_token_while_messages_wait(
    server: DevServer, connect: Callable[..., ChatClient], state_dir: Path, channel: str
) -> None:
    """Neither the outbox nor its write-ahead log, which is what a backup or a thief would copy."""
    session = server.session("alice")
    chat = connect(token=session["token"], refresh_token=session["refreshToken"])
    server.faults("status", operation="send", status=500)
    receipts = [chat.send(channel, f"the text {n}", wait=0) for n in range(10)]
    eventually(lambda: receipts[0].attempts > 1)
    files = dict(_files(state_dir))
    assert any(name.endswith("-wal") for name in files)
    assert any(b"the text 7" in content for content in files.values())
    for file, content in files.items():
        assert not [secret[:12] for secret in parts(*tokens(session)) if secret.encode() in content], file
    server.clear_faults()
    chat.outbox.flush(10)


def _files(state_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Every file but the token pairs."""
    for path in state_dir.rglob("*"):
        if path.is_file() and path.parent.name != "tokens":
            # by another process: to close a file here would take this process's locks on it away
            yield path.name, subprocess.run(["cat", path], stdout=subprocess.PIPE, check=True).stdout


def _kept(state_dir: Path) -> set[str]:
    """The tokens of the pair files."""
    pairs = [json.loads(path.read_text()) for path in state_dir.rglob("tokens/*.json")]
    assert pairs
    return {pair[name] for pair in pairs for name in ("access", "ws", "refresh") if pair.get(name)}
