"""What a log should say of failed calls."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chatsdk.core.errors import (
    CircuitOpenError,
    ConnectTimeoutError,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    NotSentError,
    OutcomeUnknownError,
    PluginError,
    RateLimited,
    ServerError,
    StatusError,
    TokenExpiredError,
    TokenUnavailableError,
)
from chatsdk.resilience.outages import NEW_KINDS, QUIET, SETTLED, STALE, Outages

DOWN = NotSentError("refused")
BUSY = ServerError(status=503)
SILENT = OutcomeUnknownError()


class Log:
    """Outages, with a clock that is moved by hand and what was said."""

    def __init__(self) -> None:
        self.outages = Outages()
        self.now = 1000.0
        self.lines: list[str] = []

    def fails(self, operation: str, error: BaseException, *, after: float = 1.0, ms: float = 5000.0) -> None:
        self.now += after
        self._keep(self.outages.failed(operation, error, ms, self.now))

    def answers(self, operation: str, *, after: float = 1.0) -> None:
        self.now += after
        self._keep(self.outages.answered(operation, self.now))

    def _keep(self, line: str) -> None:
        if line:
            self.lines.append(line)


def test_an_outage_of_everything_is_two_lines() -> None:
    """However many operations and calls fail in it; the second line has their numbers."""
    log = Log()
    for _ in range(20):
        for operation in ("messages.send", "messages.list", "channels.list", "presence.get"):
            log.fails(operation, DOWN)
    log.answers("messages.send")
    log.answers("messages.list")
    assert len(log.lines) == 2
    assert log.lines[0] == "messages.send failed: NotSentError (not_sent); said once until the server answers again"
    assert log.lines[1].startswith("the server answers again after 80.0 s, 80 calls failed (4 operations: ")
    assert log.lines[1].endswith("messages.send, messages.list, channels.list, ...)")
    assert not log.outages.on


def test_sends_that_fail_while_reads_answer_are_two_lines() -> None:
    """What answered all the time does not end the outage of what fails; the pauses of a lane are up to a minute."""
    log = Log()
    for number in range(100):
        log.fails("messages.send", BUSY if number % 2 else SILENT, after=min(60.0, 0.1 * 2**number))
        log.answers("messages.list")
        log.answers("channels.list", after=30.0)
    log.answers("messages.send")
    assert len(log.lines) == 2
    assert "messages.send failed" in log.lines[0]
    assert "100 calls failed (1 operation: messages.send)" in log.lines[1]


def test_what_nobody_asks_again_holds_up_no_end() -> None:
    """A read failed once, at the beginning; the sends that came back are the end."""
    log = Log()
    log.fails("messages.list", BUSY)
    for _ in range(10):
        log.fails("messages.send", BUSY)
    log.answers("messages.send")
    assert len(log.lines) == 2
    assert "after 11.0 s, 11 calls failed (2 operations" in log.lines[1]


def test_what_came_back_at_the_same_time_is_awaited_a_moment() -> None:
    """Reads are back, sends failed just now: it is not over. Later, with nothing that fails, it was over then."""
    log = Log()
    log.fails("messages.list", BUSY)
    log.fails("messages.send", BUSY)
    log.answers("messages.list")
    assert len(log.lines) == 1
    log.answers("messages.list", after=SETTLED)
    assert "after 2.0 s" in log.lines[1]


def test_what_never_reached_the_server_is_well_with_any_answer() -> None:
    """Who answers one can be reached by all."""
    log = Log()
    log.fails("messages.send", DOWN)
    log.fails("channels.list", DOWN, after=0.1)
    log.answers("users.me", after=0.1)
    assert len(log.lines) == 2


def test_a_forgotten_failure_is_no_outage_for_ever() -> None:
    """Nobody calls it again, and everything else answers."""
    log = Log()
    log.fails("messages.send", BUSY)
    log.answers("messages.list", after=STALE - 1)
    assert len(log.lines) == 1
    log.answers("messages.list", after=2)
    assert not log.outages.on
    assert len(log.lines) == 2


def test_an_open_circuit_is_no_outage_and_ends_none() -> None:
    """It is told by its own event; what it refuses did not come back."""
    log = Log()
    log.fails("messages.list", CircuitOpenError(circuit="mine"))
    assert log.lines == []
    log.fails("messages.send", BUSY)
    for _ in range(10):
        log.fails("messages.send", CircuitOpenError(circuit="api"), after=STALE / 5)
        log.answers("messages.list")
    assert log.outages.on
    log.answers("messages.send")
    assert "11 calls failed" in log.lines[-1]


def test_an_error_that_is_an_answer_ends_it() -> None:
    """A 403 comes from a server that is well."""
    log = Log()
    log.fails("messages.send", BUSY)
    log.fails("messages.send", Forbidden(status=403))
    assert "answers again" in log.lines[-1]


def test_a_server_that_fails_every_other_call_fills_no_log() -> None:
    """At most one outage is said in a minute, and the next line tells of the others."""
    log = Log()
    for _ in range(300):
        log.fails("messages.send", BUSY)
        log.answers("messages.send")
    assert len(log.lines) <= 2 * (600 / QUIET + 1)
    assert any("short outages since the last line" in line for line in log.lines)


def test_an_outage_soon_after_another_one_is_said_if_it_lasts() -> None:
    """After the quiet time, once."""
    log = Log()
    log.fails("messages.send", DOWN)
    log.answers("messages.send")
    for _ in range(200):
        log.fails("messages.send", DOWN)
    assert len(log.lines) == 3
    log.answers("messages.send")
    assert "200 calls failed" in log.lines[3]


def test_a_403_a_second_is_a_line_a_minute() -> None:
    """The first one is said, then how many there were."""
    log = Log()
    for _ in range(600):
        log.fails("messages.list", Forbidden("no", status=403))
    assert log.lines[0] == (
        "messages.list failed: Forbidden (forbidden, 403); if it goes on, that is said once a minute"
    )
    assert log.lines[1] == "messages.list failed 60 more times in 60 s: Forbidden (forbidden, 403)"
    assert len(log.lines) == 10


def test_a_403_after_a_long_time_is_said() -> None:
    """Also one an hour."""
    log = Log()
    for _ in range(3):
        log.fails("messages.list", Forbidden(status=403), after=3600)
    assert len(log.lines) == 3


def test_what_is_no_news_is_not_said() -> None:
    """A 404 is an answer, tokens and circuits are told elsewhere, a closed client tried nothing, Ctrl-C is no error."""
    log = Log()
    for error in (
        NotFound(status=404),
        TokenUnavailableError(),
        TokenExpiredError(),
        CircuitOpenError(),
        NotSentError(code="closed", retryable=False),
        KeyboardInterrupt(),
    ):
        log.fails("messages.list", error)
    assert log.lines == []


def test_an_impatient_caller_is_no_outage() -> None:
    """Who gave up after a tenth of a second says nothing about the server; it is an error like others."""
    log = Log()
    for _ in range(10):
        log.fails("messages.list", DeadlineExceeded(), ms=100.0)
        log.fails("messages.list", ConnectTimeoutError(), ms=100.0)
    assert not log.outages.on
    assert len(log.lines) == 2
    log.fails("messages.list", DeadlineExceeded(), ms=2000.0)
    assert log.outages.on


def test_other_errors_are_said_by_their_class() -> None:
    """Nobody knows what a stranger writes."""
    log = Log()
    for error in (PluginError("x", plugin="p"), RuntimeError("canary"), RateLimited("canary", status=429)):
        log.fails("messages.list", error)
    assert len(log.lines) == 3
    assert "canary" not in str(log.lines)


def test_a_new_status_each_time_fills_no_log() -> None:
    """A hostile server has few lines a minute."""
    log = Log()
    for number in range(1000):
        log.fails("messages.list", StatusError(status=400 + number % 100, code="x\n" * 100), after=0.05)
    assert len(log.lines) == NEW_KINDS
    assert all("\n" not in line and len(line) < 300 for line in log.lines)


ERRORS = st.sampled_from(
    [DOWN, BUSY, SILENT, Forbidden(status=403), NotFound(status=404), RateLimited(status=429), CircuitOpenError()]
)
STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | ERRORS, st.floats(0.0, 200.0)), min_size=1, max_size=200
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_lines_come_in_pairs_and_not_too_often(steps: list[tuple[str, BaseException | None, float]]) -> None:
    """Whatever happens: no end without a beginning, no second beginning before the end, and a minute between an end
    and the next beginning."""
    log, said, ended = Log(), False, float("-inf")
    for operation, error, after in steps:
        before = len(log.lines)
        if error is None:
            log.answers(operation, after=after)
        else:
            log.fails(operation, error, after=after)
        for line in log.lines[before:]:
            if "said once until" in line:
                assert not said
                assert log.now - ended >= QUIET
                said = True
            elif "answers again" in line:
                assert said
                said, ended = False, log.now
    assert not (said and not log.outages.on)
