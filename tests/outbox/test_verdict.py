"""Every decision about a message, one row for each outcome, and what must hold for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core import errors
from chatsdk.core.backoff import LANE
from chatsdk.core.models import Message
from chatsdk.core.store import Park, Reason, Row, State
from chatsdk.outbox.verdict import (
    DEFINITE_NO,
    SEND,
    SETTLE_GAP,
    Bury,
    Delivered,
    Facts,
    Finish,
    ParkAll,
    ParkUser,
    PauseUser,
    Send,
    Settle,
    Try,
    before,
    is_our_fault,
    settled,
    verdict,
)
from tests.outbox.world import a_request, an_error

NOW = 1_800_000_000.0
SENT = Delivered(Message(id="m"))


def a_row(**facts: Any) -> Row:
    """A row that was accepted an hour ago and lives a day."""
    known = {
        "id": 1,
        "request": a_request(),
        "state": State.QUEUED,
        "created_at": NOW - 3600,
        "expires_at": NOW + 82800,
    }
    return Row(**{**known, **facts})


def facts(**known: Any) -> Facts:
    """Now, with the longest jitter."""
    return Facts(**{"now": NOW, "random": 1.0, **known})


def park_of(decision: Any) -> Park:
    """What the store is told of a decision to wait."""
    assert isinstance(decision, Park | ParkUser | PauseUser | ParkAll), decision
    return decision if isinstance(decision, Park) else decision.park


OPEN = errors.CircuitOpenError(circuit="api", retry_after=9.0, retry_at=NOW + 9)
TABLE = [
    # outcome, kind of decision, reason, attempts, failures, uncertain, wakeable, seconds
    (errors.NotSentError("refused"), Park, "offline", 1, 1, None, True, 0.1),
    (errors.ConnectTimeoutError("slow"), Park, "offline", 1, 1, None, True, 0.1),
    (an_error(407), Park, "offline", 1, 1, None, True, 0.1),
    (OPEN, ParkAll, "circuit_open", 0, 0, None, True, 9.0),
    (errors.CircuitOpenError(circuit="mine", retry_at=NOW + 9), Park, "circuit_open", 0, 0, None, True, 9.0),
    (errors.CircuitOpenError(circuit="api", retry_at=NOW - 9), ParkAll, "circuit_open", 0, 0, None, True, 0.1),
    (errors.TokenUnavailableError("source"), ParkUser, "auth", 0, 0, None, True, 0.0),
    (errors.TokenExpiredError("lost"), PauseUser, "auth", 0, 0, None, True, 0.0),
    (an_error(401), ParkUser, "auth", 1, 0, None, True, 0.0),
    (errors.OutcomeUnknownError("reset"), Park, "uncertain", 1, 1, True, True, 0.1),
    (errors.DeadlineExceeded("late"), Park, "uncertain", 1, 1, True, True, 0.1),
    (errors.InvalidResponseError("cut"), Park, "uncertain", 1, 1, True, True, 0.1),
    (errors.CaptivePortalError("html"), Park, "offline", 1, 1, True, True, 0.1),
    (an_error(408), Park, "uncertain", 1, 1, True, True, 0.1),
    (an_error(500), Park, "uncertain", 1, 1, True, True, 0.1),
    (an_error(503), Park, "uncertain", 1, 1, True, True, 0.1),
    (an_error(503, retry_after=7), Park, "rate_limited", 1, 1, True, False, 7.0),
    (an_error(429), Park, "rate_limited", 1, 1, None, False, 0.1),
    (an_error(429, retry_after=0), Park, "rate_limited", 1, 1, None, False, 0.1),
    (an_error(429, retry_after=30), Park, "rate_limited", 1, 1, None, False, 30.0),
    (errors.StatusError("moved", status=302), Park, "uncertain", 1, 1, True, True, 0.1),
    (errors.PluginError(plugin="moderation"), Park, "plugin", 0, 1, True, True, 0.1),
    (errors.StorageError("token pair"), Park, "disk", 0, 1, True, True, 0.1),
    (errors.SettingsError("url"), Park, "plugin", 0, 1, True, True, 0.1),
    (KeyError("a mistake of ours"), Park, "plugin", 0, 1, True, True, 0.1),
]


@pytest.mark.parametrize(
    ("outcome", "kind", "reason", "attempts", "failures", "uncertain", "wakeable", "seconds"),
    TABLE,
    ids=lambda value: f"{type(value).__name__}{getattr(value, 'status', '')}" if isinstance(value, Exception) else None,
)
def test_waiting(
    outcome: Exception,
    kind: type,
    reason: str,
    attempts: int,
    failures: int,
    uncertain: bool | None,
    wakeable: bool,
    seconds: float,
) -> None:
    """Each outcome that is no verdict makes the lane wait: this long, for this reason, at this cost."""
    decision = verdict(a_row(), outcome, facts())
    assert type(decision) is kind
    park = park_of(decision)
    assert (park.reason, park.attempts, park.failures) == (reason, attempts, failures)
    assert (park.uncertain, park.wakeable, park.strikes, park.settle) == (uncertain, wakeable, 0, None)
    assert park.not_before - NOW == pytest.approx(seconds, abs=1e-3)


def test_delivered() -> None:
    """An answer about our key finishes the row, which costs one try."""
    assert verdict(a_row(), SENT, facts()) == Finish(SENT.message, attempts=1)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 410, 413, 422, 423, 431])
def test_refused(status: int) -> None:
    """A refusal buries a row that cannot have arrived, and has one that may have arrived settled first, at once."""
    decision = verdict(a_row(), an_error(status), facts())
    assert isinstance(decision, Bury)
    assert (decision.reason, decision.attempts) == (Reason.REJECTED, 1)
    assert decision.error is not None
    assert decision.error["status"] == status
    park = park_of(verdict(a_row(uncertain=True), an_error(status), facts()))
    assert (park.settle, park.reason, park.not_before, park.attempts) == ("rejected", "uncertain", NOW, 1)


def test_backoff_grows() -> None:
    """The lane waits 100 ms, then twice as long each time, up to a minute."""
    waits = [park_of(verdict(a_row(), OSError(), facts(failures=n))).not_before - NOW for n in range(12)]
    assert waits[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=1e-3)
    assert waits[-1] == pytest.approx(60.0)
    delay = verdict(a_row(), an_error(401), facts(user_failures=3))
    assert isinstance(delay, ParkUser)
    assert delay.delay == LANE.delay(4, 1.0)


def test_strikes() -> None:
    """A 500 is a strike only while the server is well otherwise; the twentieth has the row settled as poison."""
    assert park_of(verdict(a_row(), an_error(500), facts())).strikes == 0
    assert park_of(verdict(a_row(), an_error(500), facts(server_well=True))).strikes == 1
    assert park_of(verdict(a_row(), an_error(503), facts(server_well=True))).strikes == 0
    last = park_of(verdict(a_row(strikes=19), an_error(500), facts(server_well=True)))
    assert (last.settle, last.strikes, last.uncertain, last.not_before) == ("poison", 1, True, NOW)
    assert park_of(verdict(a_row(strikes=99), an_error(500), facts())).settle is None


def test_before_a_try() -> None:
    """An expired row dies at once if no try can have arrived, else it is settled; what is being settled goes on so."""
    assert before(a_row(), NOW) == Try()
    assert before(a_row(expires_at=NOW), NOW) == Bury(Reason.EXPIRED)
    assert before(a_row(expires_at=NOW, attempts=5), NOW) == Bury(Reason.EXPIRED)
    assert before(a_row(expires_at=NOW, uncertain=True), NOW) == Settle("expired")
    assert before(a_row(expires_at=NOW, settle=SEND), NOW) == Settle("expired")
    assert before(a_row(settle=SEND), NOW) == Settle(SEND)
    assert before(a_row(settle="poison", expires_at=NOW - 1), NOW) == Settle("poison")


def test_what_cannot_be_read_does_not_stop_its_lane() -> None:
    """A row whose request the disk has lost dies; if it may have arrived, it is settled."""
    nothing = replace(a_request(), path="")
    decision = before(a_row(request=nothing), NOW)
    assert isinstance(decision, Bury)
    assert decision.reason is Reason.POISON
    assert before(a_row(request=nothing, uncertain=True), NOW) == Settle("poison")


def test_settled_as_delivered() -> None:
    """The server has it: that was no try, and the row is SENT."""
    assert settled(a_row(settle="expired", uncertain=True), "expired", SENT, facts()) == Finish(
        SENT.message, attempts=0
    )


@pytest.mark.parametrize("status", sorted(DEFINITE_NO))
def test_settled_as_dead(status: int) -> None:
    """ "No" twice, at least a minute apart, buries; the first one is noted; a question in between changes nothing."""
    why = {"code": "poison_code", "message": "why it dies"}
    row = a_row(settle="poison", uncertain=True, error=why)
    first = park_of(settled(row, "poison", an_error(status), facts()))
    assert (first.misses, first.settled_at, first.not_before) == (1, NOW, NOW + SETTLE_GAP)
    assert (first.reason, first.settle, first.attempts, first.wakeable) == ("uncertain", "poison", 0, False)
    row = replace(row, misses=1, settled_at=NOW)
    early = park_of(settled(row, "poison", an_error(status), facts(now=NOW + 59.9)))
    assert (early.misses, early.settled_at, early.not_before) == (0, None, NOW + SETTLE_GAP)
    assert settled(row, "poison", an_error(status), facts(now=NOW + SETTLE_GAP)) == Bury(Reason.POISON, why)


def test_settling_when_the_clock_went_back() -> None:
    """A first "no" that lies in the future is taken anew, so that the minute is a real one."""
    row = a_row(settle="expired", uncertain=True, misses=1, settled_at=NOW + 3600)
    park = park_of(settled(row, "expired", an_error(404), facts()))
    assert (park.misses, park.settled_at, park.not_before) == (0, NOW, NOW + SETTLE_GAP)


def test_settling_before_sending_again() -> None:
    """A dead letter retried by hand is sent after one "no"; what it waits for then is no question any more."""
    row = a_row(settle=SEND)
    assert settled(row, SEND, an_error(404), facts()) == Send()
    assert park_of(verdict(row, errors.NotSentError(), facts())).settle == ""
    assert park_of(settled(row, SEND, errors.NotSentError(), facts())).settle == SEND


UNREACHABLE = [outcome for outcome, *_ in TABLE] + [an_error(500), an_error(405), an_error(409)]


@pytest.mark.parametrize("outcome", UNREACHABLE, ids=lambda each: f"{type(each).__name__}{getattr(each, 'status', '')}")
@pytest.mark.parametrize("reason", ["expired", "rejected", "poison"])
def test_settling_when_the_server_cannot_say(outcome: Exception, reason: str) -> None:
    """Whatever else comes, the row stays, keeps the error it would die of, and that was no try."""
    for failures in (0, 50):
        park = park_of(settled(a_row(settle=reason, uncertain=True), reason, outcome, facts(failures=failures)))
        assert (park.settle, park.attempts, park.misses, park.error) == (reason, 0, 0, None)
        assert park.reason not in ("offline", "rejected", "expired", "poison")


def test_whose_fault() -> None:
    """Plugins and our own mistakes are told apart from the network and the server."""
    assert is_our_fault(errors.PluginError(plugin="p"))
    assert is_our_fault(KeyError("x"))
    for fine in (errors.NotSentError(), an_error(500), an_error(404), an_error(401), errors.TokenExpiredError()):
        assert not is_our_fault(fine)


# ---- for every outcome


def _error_classes(base: type[errors.ChatError] = errors.ChatError) -> list[type[errors.ChatError]]:
    return [base, *(found for child in base.__subclasses__() for found in _error_classes(child))]


statuses = st.builds(
    lambda status, after: an_error(status, retry_after=after),
    st.integers(300, 599),
    st.none() | st.floats(0, 1e6),
)
others = st.sampled_from(_error_classes()).map(lambda cls: cls("it failed"))
foreign = st.sampled_from([KeyError("k"), OSError(), RecursionError(), MemoryError()])
outcomes = st.one_of(st.just(SENT), statuses, others, foreign)
rows = st.builds(
    a_row,
    uncertain=st.booleans(),
    strikes=st.integers(0, 30),
    misses=st.integers(0, 3),
    attempts=st.integers(0, 99),
    settled_at=st.floats(NOW - 100, NOW + 100),
    settle=st.sampled_from(["", SEND]),
)
all_facts = st.builds(
    Facts,
    now=st.just(NOW),
    random=st.floats(0, 1, exclude_max=True),
    failures=st.integers(0, 200),
    user_failures=st.integers(0, 200),
    server_well=st.booleans(),
)


@given(rows, outcomes, all_facts)
def test_an_uncertain_row_never_dies_of_a_try(row: Row, outcome: Any, known: Facts) -> None:
    """Only a row that cannot have arrived is buried by a try's outcome, and only by a 4xx."""
    decision = verdict(row, outcome, known)
    if isinstance(decision, Bury):
        assert not row.uncertain
        assert 400 <= outcome.status < 500
        assert decision.reason is Reason.REJECTED


@given(rows, outcomes, all_facts)
def test_waiting_is_bounded_and_never_in_the_past(row: Row, outcome: Any, known: Facts) -> None:
    """A lane waits at most a minute, unless the server or the circuit asks for more; and nothing spins."""
    decision = verdict(row, outcome, known)
    if isinstance(decision, Finish | Bury):
        return
    park = park_of(decision)
    wait = park.not_before - NOW
    if isinstance(decision, ParkUser | PauseUser) or park.settle:
        assert wait == 0
        return
    asked = getattr(outcome, "retry_after", None) or 0.0
    assert 0.04 < wait <= max(60.0, asked) + 0.001
    assert park.wakeable or park.reason == "rate_limited"


@given(rows, others | foreign, all_facts)
def test_plugins_and_circuits_cost_no_attempt(row: Row, outcome: Any, known: Facts) -> None:
    """A try that did not take place, or that a plugin spoiled, is not counted and is no strike."""
    if not isinstance(outcome, errors.PluginError | errors.CircuitOpenError | errors.TokenExpiredError):
        return
    park = park_of(verdict(row, outcome, known))
    assert (park.attempts, park.strikes, park.misses) == (0, 0, 0)


@given(rows, outcomes, all_facts)
def test_what_may_have_arrived_is_marked(row: Row, outcome: Any, known: Facts) -> None:
    """An outcome that says of itself "it may have happened" leaves an uncertain row, and nothing makes it certain."""
    decision = verdict(row, outcome, known)
    if isinstance(decision, Finish | Bury):
        return
    park = park_of(decision)
    assert park.uncertain is not False
    if getattr(outcome, "maybe_done", False):
        assert park.uncertain is True


@given(rows, outcomes, all_facts, st.sampled_from(["expired", "rejected", "poison"]))
def test_settling_buries_only_after_two_answers(row: Row, outcome: Any, known: Facts, reason: str) -> None:
    """A row dies in settling only of a definite no, the second one, a minute after the first."""
    decision = settled(row, reason, outcome, known)
    if isinstance(decision, Bury):
        assert outcome.status in DEFINITE_NO
        assert row.misses >= 1
        assert known.now - row.settled_at >= SETTLE_GAP
        assert decision.reason.value == reason
