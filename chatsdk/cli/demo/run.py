"""One run of the demo, from its temporary directory to its last line."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

from ...devserver.process import DevServer, ServerDidNotStart
from ...resilience.system_clock import SystemClock
from .. import output
from .display import Lines, Live, show_verdict
from .story import DemoFailedError, Story


def run_demo(*, messages: int, seed: int | None, keep: bool, fresh_keys: bool) -> bool:
    """Play it, show it, and say whether all was well."""
    chosen = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    directory = Path(tempfile.mkdtemp(prefix="chatsdk-demo-"))
    server = DevServer(directory / "server.sqlite")
    output.line(f"{messages} messages, seed {chosen} (for the dice; what they hit depends on timing)")
    if fresh_keys:
        output.line("Control run: a plugin gives each try a key of its own, so there must be duplicates.")
    try:
        with _display() as display:
            story = Story(
                directory, server, display, SystemClock(), messages=messages, seed=chosen, fresh_keys=fresh_keys
            )
            try:
                verdict = story.play()
            finally:
                story.end()
    except (DemoFailedError, ServerDidNotStart) as error:
        output.note(f"the demo failed: {error}")
        return False
    finally:
        if keep:
            output.line(f"the files of this run are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    show_verdict(verdict)
    return verdict.good


def _display() -> Lines | Live:
    if not output.is_terminal(sys.stdout):
        return Lines()
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return Lines()
    return Live(Console())
