"""From what was seen to a finding. Pure: errors, numbers and names in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...core.errors import (
    CaptivePortalError,
    ChatError,
    Forbidden,
    NotFound,
    NotSentError,
    OutcomeUnknownError,
    StatusError,
    TokenExpiredError,
    Unauthorized,
)
from .findings import Finding, fail, ok, warn

SKEW_WARN = 30.0
"""Seconds: more than slow answers and Date's whole seconds explain."""

SKEW_FAIL = 300.0
"""Seconds: the time window of signed webhooks, and what token checkers forgive at most."""

ENDS_SOON = 300.0
"""Seconds before its end at which a token would be refreshed (setting refresh_before)."""

CERTIFICATE_DAYS = 14.0
"""Days left at which a certificate that renews itself has been renewed."""

_DAY = 86400.0

_TLS = (
    ("not yet valid", "the certificate is not yet valid", "set this machine's clock; if it is right, the server's is"),
    (
        "expired",
        "the certificate has expired",
        "whoever runs the server must renew it; or this machine's clock is wrong",
    ),
    ("mismatch", "the certificate is for another host", "check the host name in url; a captive portal does this too"),
    (
        "not valid for",
        "the certificate is for another host",
        "check the host name in url; a captive portal does this too",
    ),
    (
        "self signed",
        "the certificate's issuer is unknown",
        "if it is your own, set ca_bundle to its file; a network that inspects traffic does this too",
    ),
    (
        "local issuer",
        "the certificate's issuer is unknown",
        "set ca_bundle to the issuer's file; a network that inspects traffic, or a missing intermediate, does this too",
    ),
)
"""What a word in OpenSSL's reason means, and what to do."""


def of_tls_error(error: ChatError) -> Finding:
    """Why there is no secure connection."""
    reason = (error.message.rpartition(": ")[2] or error.message).lower().replace("-", " ")  # not the host's name
    for word, meaning, hint in _TLS:
        if word in reason:
            return fail("tls", f"{meaning}: {error.message}", hint)
    return fail("tls", error.message, error.hint)


def of_certificate(left: float, host: str) -> Finding:
    """A good certificate that ends in `left` seconds."""
    days = left / _DAY
    if days < CERTIFICATE_DAYS:
        return warn("tls", f"{host}'s certificate ends in {days:.1f} days", "whoever runs the server should renew it")
    return ok("tls", f"{host} proved who it is; its certificate is good for {days:.0f} days")


def of_skew(skew: float | None) -> Finding:
    """Server's clock minus ours in seconds; None: unknown."""
    if skew is None:
        return warn("clock", "the server's answer has no usable Date", "compare this machine's clock yourself")
    if abs(skew) < SKEW_WARN:
        return ok("clock", f"within {max(1.0, abs(skew)):.0f} s of the server's")
    which = "behind" if skew > 0 else "ahead of"
    text = f"this machine's clock is {span(abs(skew))} {which} the server's"
    hint = "set the clock (timedatectl, chrony, ntpd); tokens and certificates are judged by it"
    return fail("clock", text, hint) if abs(skew) >= SKEW_FAIL else warn("clock", text, hint)


def of_portal(error: ChatError | None) -> Finding:
    """Whether somebody else answers in the server's place."""
    if isinstance(error, CaptivePortalError):
        return fail("captive portal", error.message, error.hint)
    return ok("captive portal", "nobody answers in the server's place")


def of_health(status: str, error: ChatError | None) -> Finding:
    """How /health was answered: with `status`, or an error."""
    if error is None:
        if status.lower() in ("ok", "healthy", "up", "pass"):
            return ok("server", "healthy")
        return warn("server", f"/health says {status!r}", "ask whoever runs the server")
    if isinstance(error, (NotFound, Unauthorized, Forbidden)):
        return warn("server", f"it answers, but not for /health ({error.status})", "check the path in url")
    return fail("server", error.message, error.hint)


def no_answer(error: ChatError | None) -> bool:
    """There is no use in asking the server anything else."""
    return isinstance(error, (NotSentError, OutcomeUnknownError))


def of_token_error(error: ChatError, ended: float | None) -> Finding:
    """Why the token does not do. `ended`: seconds since its end by the server's clock, None if it does not say."""
    if isinstance(error, (Unauthorized, TokenExpiredError)):
        if ended is not None and ended > 0:
            return fail(
                "token",
                f"it expired {span(ended)} ago",
                "put a new one where it comes from (`chatsdk config` shows where), or set refresh_token",
            )
        return fail(
            "token",
            "the server refuses it",
            "check that it is for this server and not cut off; `chatsdk config` shows where it comes from",
        )
    if isinstance(error, StatusError) and error.status < 500:
        return warn("token", f"the server took it, but did not say whose it is ({error.status})", error.hint)
    return fail("token", error.message, error.hint)


def of_token(user: str, left: float | None, *, renewable: bool) -> Finding:
    """A token that the server took. `left`: seconds to its end; `renewable`: another can be had."""
    if left is not None and left < ENDS_SOON and not renewable:
        return warn(
            "token",
            f"accepted as {user}; it ends in {span(max(0.0, left))}, and there is no way to a new one",
            "set refresh_token, token_file or token_command",
        )
    until = "" if left is None else f", good for {span(max(0.0, left))}"
    return ok("token", f"accepted as {user}{until}")


def of_plugins(found: Iterable[Mapping[str, Any]]) -> Finding:
    """What the registry says of each plugin."""
    others = [plugin for plugin in found if not plugin["built_in"]]
    broken = [plugin for plugin in others if plugin["error"] and not plugin["error"].startswith("turned off")]
    if broken:
        return fail(
            "plugins",
            "; ".join(f"{plugin['name']} of {plugin['distribution']}: {plugin['error']}" for plugin in broken),
            f"update or uninstall it, or turn it off: [plugins.{broken[0]['name']}] enabled = false in the TOML file",
        )
    working = [plugin["name"] for plugin in others if not plugin["error"]]
    return ok("plugins", f"{', '.join(working)} loaded" if working else "none beside the built-in ones")


def span(seconds: float) -> str:
    """A time for people: "45 s", "12 min", "3.5 h", "9 days"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / _DAY:.0f} days"
