"""Battery saver and "without duplicate calls", in their short form; `python -m tests.scenarios` has the long one."""

from __future__ import annotations

import pytest

from chatsdk.devserver.process import DevServer

from . import asking, battery
from .report import Row
from .saving import FASTER, FEW_SCREENS, MINUTES


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """The battery saver's lines, by name."""
    return {row.name: row for row in battery.rows(FASTER, MINUTES)}


@pytest.mark.parametrize("client", ["idle bot", "offline, 100 pending"])
@pytest.mark.parametrize("what", ["requests", "wake-ups", "CPU"])
def test_a_fifth_less_than_the_seeds_client(client: str, what: str, rows: dict[str, Row]) -> None:
    """Of each figure at least 20 % less than the client of the seeds' prose, which has something to save."""
    row = rows[f"battery saver, {client}: {what}"]
    assert row.figures["without"] > 0
    assert row.ok, row


def test_the_server_is_asked_how_it_is_only_for_somebody(rows: dict[str, Row]) -> None:
    """By the server's record: never by a client whose network nobody watches, and by one that is watched at most once
    in ten seconds; the control asks all the time."""
    row = rows["idle client: asks how the server is"]
    assert row.figures["unwatched"] == 0
    assert 0 < row.figures["watched"] <= 1 + row.figures["seconds"] / 10
    assert row.ok, row


def test_the_same_question_is_asked_once() -> None:
    """At most half of the requests, with the same answers; a writer sees at once what it wrote; nothing is older than
    the cache's time."""
    row = asking.row(FEW_SCREENS)
    assert row.figures["same"]
    assert row.figures["stale"] == 0
    assert row.ok, row


def test_the_control_of_the_questions_is_one() -> None:
    """Without the layer each question of each part is a request, no more and no less."""
    with DevServer() as server:
        asked = asking.ask(server, server.channel("alice"), 2, 1, **asking.NO_DEDUP)
    assert asked.requests == asking.PARTS * 2 * len(asked.answers)
