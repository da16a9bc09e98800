"""Real packets are lost, by the kernel: half (in a short run a third) of all between client and server, at random.

TCP sends again, so hardly anything is lost; everything is late, and much is so late that a call has to give up. It is
played in a network namespace of its own (loopback only, gone when it is over), where nftables drops what it is told to.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.scenarios.crowd import Traffic
from tests.scenarios.outcome import Outcome
from tests.scenarios.scenario import Found, Scenario, arrived, seconds
from tests.scenarios.stage import NotHere, Played, Stage, serving

ROOT = Path(__file__).resolve().parents[2]
PERCENT, PERCENT_SHORT = 50, 33
CIRCUIT_OPEN_MAX_S = 5.0
"""In place of a minute: to the circuit, calls that time out one after the other are an outage, and each probe of it is
lost as likely as any other call."""

PATIENCE_S = 240.0
TRY_S = 10.0

RULES = """
table inet scenario {{
    chain lost {{
        type filter hook input priority 0;
        tcp dport {port} numgen random mod 100 < {percent} counter drop
        tcp sport {port} numgen random mod 100 < {percent} counter drop
    }}
}}
"""


def _packets(stage: Stage) -> Found:
    """In a process of its own, in such a namespace. Raises NotHere."""
    if reason := unable():
        raise NotHere(reason)
    job = {"short": stage.short, "seed": stage.seed}
    ended = subprocess.run(
        [*UNSHARE, sys.executable, "-m", __name__, json.dumps(job)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    ours, control = (Outcome(**found[name]) for name in ("ours", "control"))
    return Found(
        Played(ours, control, found["back_s"], ()),
        f"{arrived(ours)}, {ours.errors} errors, {seconds(found['back_s'])} after",
        f"{arrived(control)}, {control.errors / control.wanted:.0%} errors",
        met=ours.share >= 0.99,
        differs=control.errors > 0 or control.delivered < control.wanted,
        figures={"dropped": found["dropped"], "back_s": found["back_s"]},
    )


UNSHARE = ("unshare", "--map-root-user", "--net")


def unable() -> str:
    """Why it cannot be done here; "" if it can."""
    missing = [name for name in ("unshare", "ip", "nft") if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)} on this machine"
    rules = RULES.format(port=1, percent=PERCENT)
    tried = subprocess.run(
        [*UNSHARE, "sh", "-c", "ip link set lo up && nft -f -"],
        input=rules,
        capture_output=True,
        text=True,
        timeout=TRY_S,
    )
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or ["no reason given"])[0]
        return f"the kernel allows no network namespace with nftables: {said}"
    return ""


def _inside(short: bool, seed: int) -> dict[str, Any]:
    """What is played there."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="chatsdk-packets-") as directory, serving(Path(directory)) as server:
        stage = Stage(server, Path(directory), short=short, seed=seed)
        settings: dict[str, Any] = {"timeout": 1.0, "circuit_open_first": 0.3} if short else {"timeout": 3.0}
        with stage.play(Traffic(6 if short else 8), circuit_open_max=CIRCUIT_OPEN_MAX_S, **settings) as play:
            rules = RULES.format(port=play.proxy.port, percent=PERCENT_SHORT if short else PERCENT)
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
            play.begin()
            played = play.end()
            listed = json.loads(
                subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, check=True).stdout
            )
    dropped = sum(
        part["counter"]["packets"]
        for each in listed["nftables"]
        if "rule" in each
        for part in each["rule"]["expr"]
        if "counter" in part
    )
    outcomes = {name: dataclasses.asdict(getattr(played, name)) for name in ("ours", "control")}
    return {**outcomes, "back_s": played.back_s, "dropped": dropped}


SCENARIOS = (Scenario("50 % of packets lost, by the kernel", ">= 99 % arrive", _packets),)

if __name__ == "__main__":
    print(json.dumps(_inside(**json.loads(sys.argv[1]))))
