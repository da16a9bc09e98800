"""Look again and again, and show it: in place on a terminal, a line or an object a change elsewhere.

A terminal is drawn anew every second, and at once when the connection moves or the size of the terminal changes. It is
another screen (as `less` has it): what was there before is there again afterwards.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ...core.errors import ConnectionFailedError
from ...resources.listening import PoliteSignals
from .. import exits, output
from ..options import Options
from . import view
from .facts import Facts, Since, look, signature

if TYPE_CHECKING:
    from ...client import ChatClient

EVERY = 1.0
"""Seconds between two looks."""

BLINK = 0.25
"""Seconds between two looks whether it should end, or the terminal has another size. A signal's handler only says so:
to wake whoever waits, it would need a lock that the thread which it interrupts may hold."""

PROBES = 3
"""Tries of the network of a single look: as many answers make a latency."""

PAUSE = 0.3
"""Seconds between two that fail: what fails in the same moment fails for the same reason."""

CLOSES = 1.0
"""Seconds to wait for what is under way at the end: nothing of it matters."""

_LATER = (
    "chatsdk.core.network_events",
    "chatsdk.network.features",
    "chatsdk.network.health",
    "chatsdk.network.link",
    "chatsdk.network.monitor",
    "chatsdk.network.tries",
    "rich.cells",
    "rich.live",
)
"""What is imported while it looks, beside what `cli.owner` knows of: root, working as the outbox's owner, may not be
able to read it then."""


@contextmanager
def onlookers(options: Options) -> Iterator[tuple[ChatClient, ChatClient]]:
    """The two clients that look: the one with the connection and the network, and the one with the outbox."""
    for name in _LATER:
        with suppress(ModuleNotFoundError):  # rich; then there are lines
            import_module(name)
    keeper = options._client(close_timeout=CLOSES)  # first: root reads settings, and then becomes the outbox's owner
    with keeper, options.listener(background=True, close_timeout=CLOSES) as watcher:
        yield watcher, keeper


def once(options: Options, *, as_json: bool) -> int:
    """One look. Exit code 0 if it is connected."""
    with onlookers(options) as (watcher, keeper):
        probing = threading.Thread(target=_probe, args=(watcher,), name="chatsdk-status-probe", daemon=True)
        probing.start()
        with suppress(ConnectionFailedError):  # shown below, as any other way not to be connected
            watcher.connect(wait=watcher.settings.timeout)
        probing.join(watcher.settings.timeout)
        facts = look(watcher, keeper, time.time())
        if as_json:
            output.as_json(facts)
        else:
            for line in view.listing(facts, view.signs_of(output.encoding(sys.stdout))):
                output.line(line)
        if facts["connection"]["connected"]:
            return exits.OK
        error = watcher.connection.error
        return exits.UNREACHABLE if error is None else exits.of_error(error) or exits.UNREACHABLE


def _probe(watcher: ChatClient) -> None:
    pause = threading.Event()
    for _ in range(PROBES):
        watcher._parts.condition.probe()
        metrics = watcher.network.metrics()
        pause.wait(PAUSE if metrics.loss or metrics.contact_age is None else 0.0)


def watch(options: Options, *, as_json: bool) -> int:
    """Until Ctrl-C, SIGTERM, or nobody reads any more."""
    told, changed = threading.Event(), threading.Event()
    with onlookers(options) as (watcher, keeper):
        with PoliteSignals(told.set), screen(as_json, watcher.settings.log) as shown:
            watcher.connection.watch(lambda _: changed.set())
            watcher.network.watch(lambda _: changed.set())
            watcher.connect()
            since = Since()
            while not told.is_set() and not output.reader_is_gone():
                changed.clear()
                shown.show(look(watcher, keeper, time.time(), since))
                again = time.monotonic() + EVERY
                while not (told.is_set() or changed.wait(BLINK) or time.monotonic() >= again):
                    shown.refit()
    return exits.OK


class Screen(Protocol):
    """Where it is shown."""

    def show(self, facts: Facts) -> None:
        """How it is now."""
        ...

    def refit(self) -> None:
        """The size of the terminal may have changed."""
        ...


@contextmanager
def screen(as_json: bool, log: str) -> Iterator[Screen]:
    """A picture on a terminal; lines or objects elsewhere, and lines where log records (`log`: the setting) would be
    written across it."""
    if as_json or not output.is_terminal(sys.stdout) or (log and sys.stderr.isatty()):
        yield Changes(output.as_json if as_json else _print_change)
        return
    try:
        from rich.console import Console
        from rich.live import Live
    except ModuleNotFoundError:
        yield Changes(_print_change)
        return
    stream, console = sys.stdout, Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False) as live:
        yield Picture(console, live, stream)


class Changes:
    """Each look that is not like the one before."""

    def __init__(self, write: Callable[[Facts], object]) -> None:
        self._write = write
        self._shown: Any = None

    def show(self, facts: Facts) -> None:
        """Write it, if anything changed but the time."""
        changed = signature(facts)
        if changed != self._shown:
            self._shown = changed
            self._write(facts)

    def refit(self) -> None:
        """Lines have no size."""


class Picture:
    """A terminal, drawn in place. `console`, `live`: rich's; they write to `stream`."""

    def __init__(self, console: Any, live: Any, stream: TextIO) -> None:
        self._console = console
        self._live = live
        self._stream = stream
        self._signs = view.signs_of(output.encoding(stream))
        self._facts: Facts = {}
        self._size: Any = None

    def show(self, facts: Facts) -> None:
        """Draw it."""
        self._facts = facts
        self._draw()

    def refit(self) -> None:
        """Draw it again, if the terminal has another size."""
        if self._console.size != self._size:
            self._draw()

    def _draw(self) -> None:
        from rich.text import Text

        self._size = size = self._console.size
        on = view.Terminal(size.width, size.height, self._signs, view.columns, self._show)
        picture = Text(no_wrap=True, overflow="crop", end="")
        for count, line in enumerate(view.fitted(self._facts, on)):
            picture.append(("\n" if count else "") + line.label)
            picture.append(line.text, line.style or None)
        self._live.update(picture, refresh=True)

    def _show(self, text: str) -> str:
        return output.encodable(text, self._stream)


def _print_change(facts: Facts) -> None:
    output.line(view.change(facts, view.signs_of(output.encoding(sys.stdout))))
