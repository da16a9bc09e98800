"""The entry of the console script `chatsdk`.

It imports nothing that the core does not bring, so that a missing extra is one sentence and not a traceback.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

GARBAGE = 100_000
"""Objects made until garbage is looked for. Importing makes some 50,000 that stay: looking through them again and
again, and once more at the end, takes a fifth of a short command's time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process) and return its exit code."""
    if arguments is not None:
        return _run(arguments)
    gc.set_threshold(GARBAGE, *gc.get_threshold()[1:])
    try:
        return _run(None)
    finally:
        gc.freeze()  # the process ends, and takes its garbage with it


def _run(arguments: Sequence[str] | None) -> int:
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "click":
            raise
        print("chatsdk: the command line needs the extra [cli]: install chatsdk with it", file=sys.stderr)
        return 78  # exits.CONFIG
    return run(arguments)
