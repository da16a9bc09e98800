"""Waiting, so that another thread can end it: for a socket, for a time, for an answer.

The reader thread waits for three things at once: its socket, a time, and a word from another thread. `Waker` is the
last as a descriptor, so that one poll covers all. `Waiter` is one run of the connection: every wait of it, in whatever
stage (name lookup, TCP, proxy, TLS, handshake, back-off, token), ends at once with `Stopped` when it is stopped from
outside. Nobody else touches the socket, so nothing has to be locked, and no stage needs a way of its own to be ended.
What the thread has to do besides (what others posted, what has become due) it does in all of those stages, `between`
two waits: a peer that says nothing for seconds holds up nobody else.

What can only be waited for by blocking (a name lookup, a token) runs in a helper thread that is left behind when the
wait ends; it ends by itself.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from math import ceil
from typing import Generic, TypeVar, cast

from ..core.clock import Clock

T = TypeVar("T")

FOREVER = 3600.0
"""Seconds that a wait without an end lasts; then its owner looks again."""

LEAST_WAIT = 0.005
"""Seconds, should something stay due after it was done."""

Start = Callable[[Callable[[], None]], object]
"""Has a function run in another thread; False: it will not."""


class Stopped(Exception):
    """This run was stopped from outside. Never leaves the package."""


class Waker:
    """A word from another thread, as something to poll. Thread-safe; its words do not add up."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may come while its thread is inside
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)
        self._open = True
        self._told = False

    def wake(self) -> None:
        """End the wait under way, or the next one."""
        with self._lock:  # or it might be closed, and its descriptor be another's, just before the write
            if self._open and not self._told:
                self._told = True
                self._out.send(b"\0")

    def wait(self, sock: socket.socket | None, write: bool, timeout: float) -> tuple[bool, bool]:
        """Until `sock` has something to read, or (`write`) takes something, or somebody wakes, or the time is over.

        Returns whether it can be read and written. A socket that failed counts as readable: reading tells how.
        """
        readable, writable, woken = _poll(sock, write, self._in, max(0.0, min(timeout, FOREVER)))
        if woken:
            with contextlib.suppress(BlockingIOError):
                self._in.recv(4096)
            self._told = False  # a word that came just now is heard as well: who waited looks around after this
        return readable, writable

    def close(self) -> None:
        """Free the descriptors; to wake does nothing from now on. Also right in a forked child: they are its own
        copies, and nothing is written."""
        with self._lock:
            self._open = False
            self._in.close()
            self._out.close()

    def abandon(self) -> None:
        """`close` in a forked child, where another thread of the parent may have held the lock."""
        self._lock = threading.RLock()
        self.close()


if hasattr(select, "poll"):

    def _poll(sock: socket.socket | None, write: bool, waker: socket.socket, timeout: float) -> tuple[bool, bool, bool]:
        poll = select.poll()
        waker_fd = waker.fileno()
        poll.register(waker_fd, select.POLLIN)
        if sock is not None:
            poll.register(sock, select.POLLIN | select.POLLOUT if write else select.POLLIN)
        readable = writable = woken = False
        for fd, what in poll.poll(ceil(timeout * 1000)):
            if fd == waker_fd:
                woken = True
            else:
                readable = bool(what & ~select.POLLOUT)
                writable = bool(what & select.POLLOUT)
        return readable, writable, woken

else:  # Windows

    def _poll(sock: socket.socket | None, write: bool, waker: socket.socket, timeout: float) -> tuple[bool, bool, bool]:
        both = [waker] if sock is None else [waker, sock]
        out = [sock] if sock is not None and write else []
        ready, takes, failed = select.select(both, out, out, timeout)  # a refused connect is a failure there
        return sock in ready or sock in failed, bool(takes), waker in ready


class Question(Generic[T]):
    """Something asked in another thread. `waker`: to be woken by the answer."""

    def __init__(self, function: Callable[[], T], waker: Waker | None) -> None:
        self._function = function
        self._waker = waker
        self._result: T | None = None
        self._error: BaseException | None = None
        self.done = False

    def begin(self, start: Start | None) -> Question[T]:
        """Have it asked, by `start` or in a thread of its own. Raises RuntimeError where no thread can be had."""
        if start is None:
            threading.Thread(target=self._run, name="chatsdk-realtime-ask", daemon=True).start()
        elif start(self._run) is False:
            raise RuntimeError("nobody is there to ask")
        return self

    def result(self) -> T:
        """What came out of it."""
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error  # raised again by whoever waits
        self.done = True
        if self._waker is not None:
            self._waker.wake()


def _nothing_else(_: float) -> float | None:
    """For a run that has nothing to do besides."""
    return None


class Waiter:
    """One run: from `connect` to whatever ends it. Only `stop` and `hurry` are for other threads.

    between  called with the time before each wait that is not a session's own; does what is to be done, and says when
             it wants to be called at the latest (None: at the next word)
    """

    def __init__(self, clock: Clock, waker: Waker, between: Callable[[float], float | None] = _nothing_else) -> None:
        self._clock = clock
        self._waker = waker
        self._between = between
        self.stopped = False
        self._hurried = False
        self.leave_within = 0.0
        """Seconds that saying goodbye may take, once it is stopped."""
        self.held: socket.socket | None = None
        """The socket in use, for a forked child to let go of."""

    def stop(self) -> None:
        """End every wait, this one and later ones."""
        self.stopped = True
        self._waker.wake()

    def hurry(self) -> None:
        """End the `pause`, also one that was announced and has not begun."""
        self._hurried = True
        self._waker.wake()

    def hold(self, sock: socket.socket | None) -> None:
        """Remember the socket in use."""
        self.held = sock

    def check(self) -> None:
        """Raises Stopped."""
        if self.stopped:
            raise Stopped

    def wait(self, sock: socket.socket | None, write: bool, until: float) -> tuple[bool, bool]:
        """`Waker.wait` until a monotonic time; a word from outside ends it as well. Raises Stopped."""
        self.check()
        ready = self._waker.wait(sock, write, until - self._clock.monotonic())
        self.check()
        return ready

    def _wait(self, sock: socket.socket | None, write: bool, until: float) -> tuple[bool, bool]:
        """`wait`, and whatever else is to be done meanwhile."""
        now = self._clock.monotonic()
        due = self._between(now)
        return self.wait(sock, write, until if due is None else min(until, max(due, now + LEAST_WAIT)))

    def ready(self, sock: socket.socket, write: bool, until: float) -> None:
        """Until `sock` has something to read or, with `write`, takes something. Raises TimeoutError, Stopped."""
        while True:
            readable, writable = self._wait(sock, write, until)
            if readable or writable:  # a connect that failed is readable: the caller asks the socket
                return
            if self._clock.monotonic() >= until:
                raise TimeoutError("not in time")

    def announce_pause(self) -> None:
        """From now on `hurry` means the next `pause`."""
        self._hurried = False

    def pause(self, until: float) -> None:
        """Until that time, or until somebody hurries. Raises Stopped."""
        while not self._hurried and self._clock.monotonic() < until:
            self._wait(None, False, until)

    def ask(self, function: Callable[[], T], until: float, start: Start | None = None) -> T:
        """What `function` returns or raises; it runs in another thread. Raises TimeoutError, Stopped as well."""
        return self.answer(self.begin(function, start), until)

    def begin(self, function: Callable[[], T], start: Start | None = None) -> Question[T]:
        """Have `function` run in another thread."""
        return Question(function, self._waker).begin(start)

    def answer(self, question: Question[T], until: float) -> T:
        """Wait for the answer. Raises what it raises, TimeoutError, Stopped."""
        while not question.done:
            if self._clock.monotonic() >= until:
                raise TimeoutError("no answer in time")
            self._wait(None, False, until)
        return question.result()
