"""The seeds' scenarios, each in its short form: the target is met, all is delivered once and in order, no caller saw an
error, and the same work without the middleware comes out worse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatsdk.cli.demo.fresh_keys import FreshKeys
from tests.faults.link import Link
from tests.scenarios import packets
from tests.scenarios.catalogue import SCENARIOS
from tests.scenarios.crowd import Traffic
from tests.scenarios.report import json_lines
from tests.scenarios.scenario import Scenario
from tests.scenarios.stage import Stage, serving


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("scenarios")
    with serving(directory) as server:
        yield Stage(server, directory, short=True)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, stage: Stage) -> None:
    """It holds; what cannot be played on this machine says why."""
    row = scenario.run(stage).row
    if row.ok is None:
        pytest.skip(row.ours)
    assert row.ok, json_lines([row])


def test_a_client_that_delivers_twice_is_found_out(stage: Stage) -> None:
    """The control of the judge: one that sends each try under a key of its own, where answers are lost."""
    with stage.play(Traffic(15), timeout=1.0, circuit_open_max=1.0, plugins=[FreshKeys()]) as play:
        play.begin(Link(loss=0.5))
        played = play.end()
    assert played.ours.twice > 0
    assert not played.ours.perfect


def test_a_machine_without_the_tools_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real packet loss is left out for a reason that is named."""
    monkeypatch.setenv("PATH", "")
    assert packets.unable() == "there is no unshare, ip, nft on this machine"
