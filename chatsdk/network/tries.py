"""Each HTTP try as a sample: what an exchange with the server says about the network between.

it ended with                            | says
-----------------------------------------+--------------------------------------------------------------
an answer, whatever its status           | contact; its time is a latency, a large body tells of bandwidth
a web page, a redirect elsewhere, 511    | somebody in between answered: captive_portal
an answer that cannot be used            | the same: rewriting_proxy
silence, a broken connection             | lost
a refused connection, or none in time    | lost: unreachable
a caller that waited less than a second  | nothing
a caller that woke up long after its end | nothing: it was stopped, or the machine slept
nothing that was sent at all             | nothing (closed, no token, a wrong request, an open circuit)
"""

from __future__ import annotations

from collections.abc import Callable
from json import JSONDecodeError
from typing import Protocol

from ..core.errors import (
    CaptivePortalError,
    ChatError,
    DeadlineExceeded,
    InvalidResponseError,
    NotSentError,
    OutcomeUnknownError,
    StatusError,
)
from ..core.exchange import CallNext, Request, Response
from .quality import Reason

PATIENT = 1.0
"""Seconds from which on a caller that gave up is a sign of loss; a shorter deadline says more about the caller."""

OVERSLEPT = 1.0
"""Seconds after its deadline at which a try ended that had no chance: a machine under load is late by less."""

UNREACHABLE = "unreachable"
"""Not even a connection. An estimate takes it for a loss like any other; a probe that ends so is nobody's page."""

_NOTHING_TRIED = frozenset({"closed", "invalid_request", "deadline"})


class Sample(Protocol):
    """`monitor.NetworkMonitor.sample`."""

    def __call__(self, latency: float | None, ok: bool = True, size: int = 0, reason: str = "") -> object: ...


def observed(exchange: CallNext, sample: Sample, monotonic: Callable[[], float]) -> CallNext:
    """`exchange`, with a sample for each call. What it returns or raises stays the same."""

    def run(request: Request) -> Response:
        began = monotonic()
        try:
            response = exchange(request)
        except ChatError as error:
            now = monotonic()
            if request.deadline is None or now - max(request.deadline, began) < OVERSLEPT:
                _report(error, now - began, sample)
            raise
        sample(response.elapsed or monotonic() - began, True, _size(response))
        return response

    return run


def _report(error: ChatError, took: float, sample: Sample) -> None:
    if isinstance(error, StatusError):
        answer = error.response
        sample((answer.elapsed if answer is not None else 0.0) or took, True)
    elif isinstance(error, CaptivePortalError):
        sample(None, False, 0, Reason.CAPTIVE_PORTAL)
    elif isinstance(error, InvalidResponseError):
        if error.code == "too_large":
            sample(None, True)
        else:
            sample(None, False, 0, Reason.REWRITING_PROXY if _whole(error.__cause__) else "")
    elif isinstance(error, DeadlineExceeded):
        if took >= PATIENT:
            sample(None, False)
    elif isinstance(error, OutcomeUnknownError):
        sample(None, False)
    elif isinstance(error, NotSentError) and error.retryable and error.code not in _NOTHING_TRIED:
        sample(None, False, 0, UNREACHABLE)


def _whole(cause: BaseException | None) -> bool:
    """The answer came to its end, and was of no use all the same; else it broke off. `cause`: why it was none."""
    if isinstance(cause, JSONDecodeError):
        return cause.msg == "Extra data" or not cause.doc.lstrip().startswith(("{", "["))
    return cause is None or isinstance(cause, (ValueError, RecursionError))


def _size(response: Response) -> int:
    text = response.headers.get("content-length", "")
    return int(text) if 4 < len(text) < 16 and text.isdecimal() else 0  # below 10,000 bytes it does not matter
