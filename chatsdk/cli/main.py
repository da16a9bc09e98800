"""The entry of the console script `chatsdk`.

It imports nothing that the core does not bring, so that a missing extra is one sentence and not a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process) and return its exit code."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "click":
            raise
        print("chatsdk: the command line needs the extra [cli]: install chatsdk with it", file=sys.stderr)
        return 78  # exits.CONFIG
    return run(arguments)
