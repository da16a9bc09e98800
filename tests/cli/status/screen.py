"""A terminal of a given size, with a program in it: what it shows, what was written to it, and how it was left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.cells import cell_len

LIMIT = 60.0
HOME = b"\x1b[H"
ENTERS = b"\x1b[?1049h"
LEAVES = b"\x1b[?1049l"
SHOWS_CURSOR = b"\x1b[?25h"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """As a context manager it runs `chatsdk ...` in itself. `written`: all bytes that came."""

    def __init__(self, environ: Mapping[str, str], *arguments: str, width: int = 80, height: int = 24) -> None:
        self.master, self._slave = pty.openpty()
        self.resize(width, height)
        self.before = termios.tcgetattr(self._slave)
        self.written = b""
        self._lock = threading.Lock()
        self._sizes = [(width, height)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chatsdk", *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={"TERM": "xterm-256color", **environ},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT)
        os.close(self._slave)
        self._reader.join(LIMIT)
        os.close(self.master)

    def resize(self, width: int, height: int) -> None:
        """Another size; the program finds out by itself."""
        self.size = width, height
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(self.master, 65536):
                with self._lock:
                    self.written += data

    def picture(self) -> list[str]:
        """The last picture that was drawn whole."""
        with self._lock:
            drawn = self.written.split(HOME)
        whole = drawn[-2] if len(drawn) > 2 else b""  # the last one may still be coming
        return _ESCAPES.sub("", whole.decode("utf-8", "replace")).replace("\r", "").split("\n")

    def until(self, condition: Callable[[str], object], what: str) -> list[str]:
        """Wait for a picture that fits the terminal and of which that is true."""
        ends = time.monotonic() + LIMIT
        while True:
            lines = self.picture()
            if condition("\n".join(lines)) and self.fits(lines):
                return lines
            assert self.process.poll() is None, self.written.decode("utf-8", "replace")
            assert time.monotonic() < ends, f"never seen: {what}; last:\n" + "\n".join(lines)
            threading.Event().wait(0.05)

    def fits(self, lines: list[str]) -> bool:
        """No line would wrap, and none would scroll."""
        width, height = self.size
        return len(lines) <= height and all(cell_len(line) <= width for line in lines)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(LIMIT)
        ends = time.monotonic() + 5
        while ENTERS in self.written and LEAVES not in self.written[-200:] and time.monotonic() < ends:
            threading.Event().wait(0.01)
        return code

    def is_clean(self) -> bool:
        """As it was before: the first screen, with a cursor, and its own settings."""
        last = self.written[-200:]
        return LEAVES in last and SHOWS_CURSOR in last and termios.tcgetattr(self._slave) == self.before
