"""The table of exit codes."""

from __future__ import annotations

import pytest

from chatsdk.cli import exits
from chatsdk.core import errors


@pytest.mark.parametrize(
    ("codes", "wins"),
    [((), 0), ((0, 75), 75), ((75, 65), 65), ((65, 77, 75), 77), ((77, 78, 65, 75), 78), ((0, 0), 0), ((1, 75), 75)],
)
def test_the_worst_code_wins(codes: tuple[int, ...], wins: int) -> None:
    """78 > 77 > 65 > 75."""
    assert exits.worst(*codes) == wins


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingsError("x"), 78),
        (errors.Unauthorized("x", status=401), 77),
        (errors.Forbidden("x", status=403), 77),
        (errors.TokenExpiredError("x"), 77),
        (errors.TokenUnavailableError("x"), 77),
        (errors.MessageRejected("x"), 65),
        (errors.InvalidMessage("x"), 65),
        (errors.NotAcceptedError("x", plugin="moderation"), 65),
        (errors.BadRequest("x", status=400), 65),
        (errors.NotSentError("x"), 69),
        (errors.CircuitOpenError("x"), 69),
        (errors.ServerError("x", status=503), 69),
        (errors.RateLimited("x", status=429), 69),
        (errors.CaptivePortalError("x"), 69),
        (errors.NotFound("x"), 1),
        (KeyError("x"), 1),
    ],
)
def test_each_error_has_its_code(error: Exception, code: int) -> None:
    """What went wrong decides the code, also for those errors that are of several kinds."""
    assert exits.of_error(error) == code


@pytest.mark.parametrize("error", [errors.StorageError("x"), errors.OutboxFullError("x")])
def test_not_accepted_is_never_said_to_be_queued(error: Exception) -> None:
    """75 means "accepted, do not send it again": a full or locked outbox must not say that."""
    assert exits.of_error(error) == exits.FAILED


def test_no_error_of_the_sdk_ends_with_zero_or_queued() -> None:
    """Every class of the tree maps to a code that says failure and never to "accepted"."""

    def descendants(kind: type[errors.ChatError]) -> list[type[errors.ChatError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in descendants(child))]

    for kind in descendants(errors.ChatError):
        assert exits.of_error(kind("x")) not in (exits.OK, exits.QUEUED), kind
