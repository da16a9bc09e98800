"""Names: looked up without waiting longer than the caller can, and not at all where the address is known."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chatsdk.core.errors import ConnectTimeoutError, NotSentError
from chatsdk.pipeline.resolver import Resolver
from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import RawServer, always, http, raised, send
from tests.waiting import eventually

HERE = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))
THERE = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 80))


class Names:
    """A lookup that answers, fails or hangs as it is told."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.fails = False

    def __call__(self, host: str, port: int) -> Sequence[Any]:
        self.asked += 1
        self.gate.wait(10)
        if self.fails:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [HERE]


def test_hanging_lookup_does_not_hold_the_caller() -> None:
    """The caller leaves at his time-out; ten callers share one helper thread; its late answer serves the next one."""
    names = Names()
    names.gate.clear()
    resolver = Resolver(lookup=names)
    began = time.monotonic()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            resolver.addresses("chat.invalid", 80, 0.01)
    assert time.monotonic() - began < 2
    assert names.asked == 1
    names.gate.set()
    assert resolver.addresses("chat.invalid", 80, 5) == [HERE]
    eventually(lambda: not any(t.name == "chatsdk-resolve" for t in threading.enumerate()))


def test_last_address_serves_while_lookups_fail() -> None:
    """An outage of the name server does not matter to who was connected before; until that address fails too."""
    names = Names()
    resolver = Resolver(lookup=names)
    resolver.worked("chat.invalid", 80, THERE)
    assert resolver.addresses("chat.invalid", 80, 5) == [HERE]  # fresh ones come first
    names.fails = True
    assert resolver.addresses("chat.invalid", 80, 5) == (THERE,)
    names.gate.clear()
    assert resolver.addresses("chat.invalid", 80, 0.01) == (THERE,)
    names.gate.set()
    eventually(lambda: not any(t.name == "chatsdk-resolve" for t in threading.enumerate()))
    resolver.failed("chat.invalid", 80)
    with pytest.raises(socket.gaierror):
        resolver.addresses("chat.invalid", 80, 5)


def test_without_threads_the_known_address_comes_first() -> None:
    """In one-shot mode no thread is started: the caller looks up, once, and again when the address fails."""
    names = Names()
    resolver = Resolver(threaded=False, lookup=names)
    threads = threading.active_count()
    assert resolver.addresses("chat.invalid", 80, 5) == [HERE]
    resolver.worked("chat.invalid", 80, HERE)
    assert resolver.addresses("chat.invalid", 80, 5) == (HERE,)
    assert names.asked == 1
    resolver.failed("chat.invalid", 80)
    resolver.addresses("chat.invalid", 80, 5)
    assert names.asked == 2
    assert threading.active_count() == threads


def test_addresses_need_no_lookup() -> None:
    """127.0.0.1 and ::1 are addresses already; a name that looks like one is looked up."""
    names = Names()
    resolver = Resolver(lookup=names)
    assert resolver.addresses("127.0.0.1", 80, 5)[0][4] == ("127.0.0.1", 80)
    assert resolver.addresses("::1", 80, 5)[0][4][:2] == ("::1", 80)
    assert names.asked == 0
    assert resolver.addresses("host1", 80, 5) == [HERE]
    assert names.asked == 1


def test_interpreter_exit_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started any more the caller looks up himself."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert Resolver(lookup=Names()).addresses("chat.invalid", 80, 5) == [HERE]


def test_forked_child_does_not_wait_for_the_parents_helper() -> None:
    """A lookup that ran when the process forked never ends in the child, so the child begins its own."""
    names = Names()
    names.gate.clear()
    resolver = Resolver(lookup=names)
    with pytest.raises(TimeoutError):
        resolver.addresses("chat.invalid", 80, 0.01)
    names.gate.set()
    resolver.after_fork()
    assert resolver.addresses("chat.invalid", 80, 5) == [HERE]
    assert names.asked == 2


def test_unknown_name(connect: Callable[..., Transport]) -> None:
    """A name that nobody knows: nothing was sent, and the error names it."""
    error = raised(lambda: connect("http://chat.invalid")(send()))
    assert (type(error), error.code) == (NotSentError, "dns")
    assert "chat.invalid" in error.message


def test_lookup_that_hangs_meets_the_deadline(
    connect: Callable[..., Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that does not answer costs what the caller can wait, not what the system would."""
    names = Names()
    names.gate.clear()
    transport = connect("http://chat.invalid", connect_timeout=0.2)
    monkeypatch.setattr(transport._resolver, "_lookup", names)
    began = time.monotonic()
    error = raised(lambda: transport(send()))
    assert (type(error), error.code) == (ConnectTimeoutError, "dns_timeout")
    assert time.monotonic() - began < 0.2 * 1.1 + 0.25
    names.gate.set()


def test_second_address_is_tried(
    serve: Callable[..., RawServer], connect: Callable[..., Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with several addresses works as long as one of them does."""
    server = serve(always(http(b'{"a": 1}')))
    dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
    live = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
    transport = connect(f"http://chat.invalid:{server.port}")
    monkeypatch.setattr(transport._resolver, "_lookup", lambda host, port: [dead, live])
    assert transport(send()).body == {"a": 1}
