"""A process that sends from many threads is forked again and again at random moments."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from chatsdk.devserver.process import DevServer
from tests.chaos.runs import make_run
from tests.chaos.template import Template

FORKS = 40


def test_forked_children_send_with_the_client_they_inherited(
    templates: list[Template], server: DevServer, tmp_path: Path
) -> None:
    """No child hangs, and what parent and children sent is there exactly once and in order."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    began = time.monotonic()
    run = make_run(tmp_path, server, 0, channels=3)
    assert templates[0].run("forking", seed=seed, run=0, most=150, forks=FORKS, **run.job) == 0, (
        seed,
        templates[0].errors.read_text(),
    )
    stats = run.recover(templates[0])
    verdict = run.judge(server.log()["messages"])
    assert verdict.violations == {}, seed
    assert verdict.unknown == ()
    assert verdict.delivered == stats["delivered"]
    print(f"{FORKS} forks, {verdict.delivered} delivered, {time.monotonic() - began:.1f} s")
