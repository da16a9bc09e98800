"""Sends as a user without a home and without an entry in the user database: `python homeless.py CHANNEL WARM STATE`.

An ordinary send in another directory comes first: it imports what is needed, because that user may not be able to read
this interpreter's files. Prints what became of a send without a state directory, and of one with.
"""

from __future__ import annotations

import json
import os
import sys

from chatsdk import ChatClient, ChatError

NOBODY_AT_ALL = 54321


def main(channel: str, warm: str, state: str) -> None:
    """Send without a state directory, then with one that the environment gives."""
    with ChatClient(state_dir=warm) as chat:
        chat.send(channel, "warm")
    os.chown(state, NOBODY_AT_ALL, NOBODY_AT_ALL)
    os.setgroups([])
    os.setgid(NOBODY_AT_ALL)
    os.setuid(NOBODY_AT_ALL)
    for name in ("HOME", "CHATSDK_STATE_DIR"):
        os.environ.pop(name, None)
    try:
        ChatClient().send(channel, "without")
    except ChatError as error:
        print(json.dumps(error.to_dict()))
    os.environ["CHATSDK_STATE_DIR"] = state
    with ChatClient() as chat:
        print(json.dumps({"state": chat.send(channel, "with").wait(10).state}))


if __name__ == "__main__":
    main(*sys.argv[1:])
