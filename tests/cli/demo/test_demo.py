"""The demo itself, as people run it, and its control."""

from __future__ import annotations

import re

from tests.cli.conftest import Ended, Shell


def _figures(ended: Ended) -> dict[str, str]:
    return dict(re.findall(r"^(\S.*?) {2,}(\S.*)$", ended.out, re.MULTILINE))


def test_the_demo_keeps_its_promise(chatsdk: Shell) -> None:
    """Nothing lost, duplicated or out of order through every kind of trouble; both processes were killed; exit 0."""
    ended = chatsdk("demo", "--messages", "120", "--seed", "7")
    assert ended.code == 0, ended.out + ended.err
    told = _figures(ended)
    assert (told["lost"], told["duplicated"], told["out of order"]) == ("0", "0", "0")
    assert told["accepted (send returned)"] == "120"
    assert int(told["delivered (in the server's log)"]) >= 120
    for kind in ("latency", "drop", "503", "429", "reply_lost"):
        assert kind in told["faults met"]
    assert re.fullmatch(r"server with [1-9]\d* waiting, sender with [1-9]\d* waiting", told["kills (SIGKILL)"])
    assert float(told["attempts per message"]) > 1
    assert ended.out.count("SIGKILL, while") == 2


def test_the_control_is_found_out(chatsdk: Shell) -> None:
    """Without idempotency each lost reply is a duplicate: the same demo must say so and fail."""
    ended = chatsdk("demo", "--messages", "120", "--seed", "7", "--break-idempotency")
    assert ended.code == 1
    told = _figures(ended)
    assert int(told["duplicated"]) > 0
    assert told["lost"] == "0"
    assert re.search(r"FAILED: \d+ delivered twice", ended.out)
    assert "exactly once" not in ended.out
