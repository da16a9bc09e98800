"""A fork while another thread holds a lock of ours: for every lock that can be found in a client that is at work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.running import running

HOLDING = Path(__file__).with_name("holding.py")
AT_ONCE_S = 1.0
LOCKS = 35
"""At least as many are found; fewer would mean that the search fails."""

REFUSED = "this process was forked while its parent was using the outbox"


@pytest.mark.parametrize("way", ["os.fork", "bare"])
def test_a_fork_while_a_lock_is_held(
    way: str, channel: str, tmp_path: Path, environment: dict[str, str], texts: Callable[..., list[str]]
) -> None:
    """Whatever lock another thread held, the child sends within a second, once. Without hooks, one that was forked in
    the middle of the parent's reading or writing refuses at once instead; it is the only lock of that kind."""
    with running([sys.executable, str(HOLDING), way, channel], environment, tmp_path) as program:
        assert program.process.wait(60) == 0, program.errors.read_text()
        found = [json.loads(line) for line in program.out.read_text().splitlines()]
    assert len(found) > LOCKS
    refused = {each["lock"] for each in found if each["state"] == REFUSED}
    if way == "bare":
        assert {name.split()[0] for name in refused} <= {"chatsdk.outbox.database.Database.mutex", "all"}
    else:
        assert refused == set()
    for each in found:
        assert each["state"] == "SENT" or each["lock"] in refused, each
        assert each["took"] < AT_ONCE_S, each
    sent = [each["lock"] or "last" for each in found if each["lock"] not in refused]
    assert texts(channel) == ["first", *sent]
