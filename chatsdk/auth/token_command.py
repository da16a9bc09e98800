"""A program that prints a token, such as a password manager's command line.

It is an argument list, run without a shell, without standard input, in a session of its own so that its children can
be ended with it. It has `timeout` seconds (where it runs in a caller's thread: less, if the caller has a deadline) and
may print 64 KiB. Its standard error is thrown away and its arguments are
never shown: both are places where secrets turn up.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Sequence
from pathlib import PurePath

from ..core.clock import Clock
from ..core.errors import SettingsError, TokenUnavailableError
from ..core.tokens import Token, TokenRequest
from ..resilience.deadline import clamp
from .sources import MAX_TEXT
from .token_text import parse

TIMEOUT = 10.0
"""Seconds that a command may take."""


class TokenCommand:
    """The token that `command` prints. Raises SettingsError for what is no list of arguments."""

    name = "command"
    quick = False
    mints = True

    def __init__(self, command: Sequence[str], *, clock: Clock, timeout: float = TIMEOUT) -> None:
        if isinstance(command, str) or not command or not all(isinstance(part, str) for part in command):
            raise SettingsError("token_command is a list of arguments, such as ['pass', 'show', 'chat']")
        self._command = tuple(command)
        self._clock = clock
        self._timeout = timeout
        self._what = f"the token command {PurePath(command[0]).name!r}"

    def __repr__(self) -> str:
        return f"TokenCommand({PurePath(self._command[0]).name!r})"

    def get(self, request: TokenRequest, now: float) -> Token | None:
        """Runs it. Raises TokenUnavailableError if it fails, takes too long or prints no token."""
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no fork while the interpreter ends
            failure = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            process = None
        if process is None:
            raise TokenUnavailableError(f"{self._what} can't be run: {failure}")
        try:
            return parse(self._output(process), f"what {self._what} prints")
        finally:
            _end(process)

    def changed(self) -> bool:
        """A program is run when a token is needed, not watched."""
        return False

    def _output(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        limit = clamp(self._timeout)
        until = self._clock.monotonic() + limit
        output = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(max(until - self._clock.monotonic(), 0.0)):
                    raise self._too_slow(limit)
                piece = os.read(process.stdout.fileno(), MAX_TEXT)
                if not piece:
                    break
                output += piece
                if len(output) > MAX_TEXT:
                    raise TokenUnavailableError(f"{self._what} prints more than {MAX_TEXT} bytes")
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(max(until - self._clock.monotonic(), 0.0))
        if code is None:
            raise self._too_slow(limit)
        if code != 0:
            raise TokenUnavailableError(f"{self._what} failed (exit code {code}); run it by hand to see why")
        return output

    def _too_slow(self, limit: float) -> TokenUnavailableError:
        return TokenUnavailableError(f"{self._what} took longer than {limit:.3g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what was given up on, with its children, and leave neither zombie nor pipe. What ended by itself may have
    left an agent behind that is meant to live on."""
    if process.returncode is None:  # nobody waited for it yet, so the id is still its own
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    process.wait()
