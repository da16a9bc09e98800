"""The lines of `chatsdk outbox run`: one an outage."""

from __future__ import annotations

from chatsdk.cli.drainer import Outages
from chatsdk.core.errors import NotSentError
from chatsdk.core.events import MessageFailed, MessageSent


def _failed(at: float, channel: str = "a") -> MessageFailed:
    return MessageFailed(
        at=at, id=1, key="k", user="u", channel=channel, state="QUEUED", reason="offline", error=NotSentError("refused")
    )


def _sent(at: float, channel: str = "a") -> MessageSent:
    return MessageSent(at=at, id=1, key="k", user="u", channel=channel, state="SENT")


def test_an_outage_is_one_line_and_its_end_another() -> None:
    """Many failures of many lanes are one outage; it ends when the last lane delivers again."""
    said: list[str] = []
    outages = Outages(said.append)
    for at in range(20):
        outages.failed(_failed(at, "ab"[at % 2]))
    outages.ended(_sent(30, "a"))
    assert len(said) == 1
    assert "offline" in said[0]
    assert "refused" in said[0]
    outages.ended(_sent(31, "b"))
    assert said[1:] == ["delivering again, after 31 s"]


def test_trouble_that_is_soon_over_is_not_worth_a_line() -> None:
    """One lost connection does not fill a log."""
    said: list[str] = []
    outages = Outages(said.append)
    for at in (0, 1, 3, 100, 101):
        outages.failed(_failed(at))
        outages.ended(_sent(at + 0.5))
    assert said == []


def test_the_next_outage_is_said_again() -> None:
    """After the end of one, another begins anew."""
    said: list[str] = []
    outages = Outages(said.append)
    for start in (0, 100):
        outages.failed(_failed(start))
        outages.failed(_failed(start + 6))
        outages.ended(_sent(start + 7))
    assert [line.split(",")[0].split(" (")[0] for line in said] == ["delivery is failing", "delivering again"] * 2
