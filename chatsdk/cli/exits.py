"""Exit codes: the one table.

A caller that reads nothing but the code knows what to do: 0 go on; 75 the message is accepted and will go out, so do
not send it again; 65 it will not go out as it stands; 77 and 78 somebody must look. They are those of sysexits.h where
that has a word for it. Where a run meets several, the worst wins.
"""

from __future__ import annotations

from ..core import errors

OK = 0
"""Delivered, or safely queued where that was asked for, or nothing to do."""
FAILED = 1
"""A demo that found something, a thing that is not there, or an error nobody foresaw."""
USAGE = 2
"""The command line makes no sense (click's own)."""
DIED = 65
"""EX_DATAERR: died in this run, or refused as it stands."""
UNREACHABLE = 69
"""EX_UNAVAILABLE: the server could not be reached or did not answer well (reads)."""
QUEUED = 75
"""EX_TEMPFAIL: waited, and still queued. It was accepted: do not send it again."""
AUTH = 77
"""EX_NOPERM: the token was refused, is lost, or does not allow it."""
CONFIG = 78
"""EX_CONFIG: a setting or the state directory."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

_WORST_FIRST = (CONFIG, AUTH, DIED, QUEUED, UNREACHABLE, FAILED)

_BY_ERROR: tuple[tuple[type[BaseException], int], ...] = (
    (errors.SettingsError, CONFIG),
    (errors.TokenExpiredError, AUTH),
    (errors.TokenUnavailableError, AUTH),
    (errors.Unauthorized, AUTH),
    (errors.Forbidden, AUTH),
    (errors.MessageRejected, DIED),
    (errors.InvalidMessage, DIED),
    (errors.KeyReusedError, DIED),
    (errors.InvalidArgument, USAGE),
    (errors.NotFound, FAILED),
    (errors.RateLimited, UNREACHABLE),
    (errors.ServerError, UNREACHABLE),
    (errors.StatusError, DIED),
    (errors.NotSentError, UNREACHABLE),
    (errors.OutcomeUnknownError, UNREACHABLE),
    (errors.ConnectionFailedError, UNREACHABLE),
)

_REFUSED = ("server_3500", "server_3503")
"""Codes of a realtime connection whose token was refused or revoked."""


def worst(*codes: int) -> int:
    """The code that wins: 78 > 77 > 65 > 75 > 69 > 1 > 0."""
    return next((code for code in _WORST_FIRST if code in codes), OK)


def of_error(error: BaseException) -> int:
    """The code an error ends with. A refusal by a plugin is one of the message as it stands; a full or locked outbox is
    a failure, never 75: nothing was accepted."""
    if isinstance(error, errors.NotAcceptedError) and error.plugin is not None:
        return DIED
    if isinstance(error, errors.ConnectionFailedError) and error.code in _REFUSED:
        return AUTH
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)
