"""Sends from a state directory without permissions, as an ordinary user:
`python unprivileged.py CHANNEL WARM STATE WHICH MODE`.

Root may write everywhere, so root becomes somebody else first, after an ordinary send in another directory: it imports
what is needed, because that somebody may not be able to read this interpreter's files. Prints the error as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from chatsdk import ChatClient, ChatError

NOBODY = 65534


def main(channel: str, warm: str, state: str, which: str, mode: str) -> None:
    """Send once as it should be, then without permission."""
    with ChatClient(state_dir=warm) as chat:
        chat.send(channel, "warm")
    base = Path(state) / "base"
    base.mkdir(0o700)
    if os.geteuid() == 0:
        os.chown(base, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    target = base
    if which == "the outbox":
        with ChatClient(state_dir=str(base)) as chat:
            chat.send(channel, "before")
        (target,) = base.glob("*/default")
        for file in target.glob("*"):
            file.chmod(int(mode) & 0o400)
    target.chmod(int(mode))
    try:
        ChatClient(state_dir=str(base)).send(channel, "after")
    except ChatError as error:
        print(json.dumps(error.to_dict()))
    else:
        print(json.dumps({"type": "no error"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
