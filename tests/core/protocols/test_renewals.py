"""When tokens are asked for anew."""

from __future__ import annotations

import pytest

from chatsdk.core.protocols.outputs import TokenWanted
from chatsdk.core.protocols.renewals import ASK_AGAIN, RETRY, Renewals, expires


@pytest.mark.parametrize(("ttl", "due"), [(900, 720), (60, 48), (20, 10), (5, 2.5), (2, 1), (0.001, 1), (86400, 69120)])
def test_a_token_is_asked_for_before_it_ends(ttl: float, due: float) -> None:
    """A fifth of its life before the end, at least ten seconds, at most half of it; never sooner than in a second."""
    renewals = Renewals()
    renewals.granted(None, {"expires": True, "ttl": ttl}, 1000.0)
    assert renewals.next_due == 1000.0 + due
    assert renewals.due(1000.0 + due - 0.01) == []
    assert renewals.due(1000.0 + due) == [TokenWanted(None)]


@pytest.mark.parametrize(
    "answer", [{}, {"ttl": 0}, {"ttl": "9"}, {"ttl": True}, {"ttl": -5}, {"ttl": 1e300}, {"expires": 1}]
)
def test_a_token_without_an_end_is_never_asked_for(answer: dict[str, object]) -> None:
    """Nonsense in the place of a time is no time."""
    renewals = Renewals()
    renewals.granted("s", answer, 0.0)
    assert renewals.next_due is None
    assert not expires(answer)


def test_each_target_has_its_own_time() -> None:
    """The soonest is next; what is forgotten is never asked for."""
    renewals = Renewals()
    renewals.granted("a", {"ttl": 100}, 0.0)
    renewals.granted("b", {"ttl": 50}, 0.0)
    renewals.granted(None, {"ttl": 200}, 0.0)
    assert renewals.next_due == 40.0
    renewals.forget("b")
    renewals.forget("never heard of")
    assert renewals.next_due == 80.0
    assert renewals.due(170.0) == [TokenWanted("a"), TokenWanted(None)]


def test_an_unanswered_question_is_repeated() -> None:
    """Whoever fetches tokens may have failed."""
    renewals = Renewals()
    renewals.granted(None, {"ttl": 100}, 0.0)
    assert renewals.due(80.0) == [TokenWanted(None)]
    assert renewals.due(80.0 + ASK_AGAIN - 1) == []
    assert renewals.due(80.0 + ASK_AGAIN) == [TokenWanted(None)]


def test_one_renewal_at_a_time() -> None:
    """While one is under way a second is not sent, and nothing is asked for."""
    renewals = Renewals()
    assert renewals.begin("a")
    assert not renewals.begin("a")
    assert renewals.begin("b")
    assert renewals.next_due is None
    renewals.granted("a", {"ttl": 100}, 0.0)
    assert renewals.begin("a")


def test_refusals_make_no_loop() -> None:
    """The first refusal asks at once for another token, further ones wait; a grant forgets them."""
    renewals = Renewals()
    renewals.granted("a", {"ttl": 100}, 0.0)
    assert renewals.due(80.0) == [TokenWanted("a")]
    assert renewals.refused("a", 81.0) == [TokenWanted("a", refused=True)]
    assert renewals.refused("a", 82.0) == []
    assert renewals.next_due == 81.0 + RETRY
    assert renewals.due(81.0 + RETRY) == [TokenWanted("a", refused=True)]
    assert renewals.refused("a", 81.0 + 2 * RETRY) == [TokenWanted("a", refused=True)]
    renewals.granted("a", {"ttl": 100}, 110.0)
    assert renewals.refused("a", 110.0) == [TokenWanted("a", refused=True)]


def test_an_unclear_answer_waits() -> None:
    """The server could not tell: the same question later."""
    renewals = Renewals()
    renewals.begin(None)
    renewals.unclear(None, 5.0)
    assert renewals.due(5.0 + RETRY) == [TokenWanted(None)]
