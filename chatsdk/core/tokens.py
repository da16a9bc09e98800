"""Secrets and tokens as values.

A `Secret` shows nothing of itself: not in str, repr, format, a log record, JSON, a pickle or a copy in the outbox. Only
`reveal()` gives the text, and only the places that put it on the wire or into the token file call that.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn

from .record import Record, record


class Secret:
    """Text that must not be seen."""

    __slots__ = ("_text",)

    def __init__(self, text: str | Secret) -> None:
        self._text: str = text._text if isinstance(text, Secret) else text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def fingerprint(self) -> str:
        """A short hash, enough to see that two secrets differ and useless for anything else."""
        return hashlib.sha256(b"chatsdk fingerprint\0" + self._text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


@record(frozen=True, slots=True, init=False)
class Token(Record):
    """What proves who a user is. Plain text is taken for any of the three and is a `Secret` from the first moment.

    access      sent with every HTTP call
    ws          the websocket's token, where it is another one (signed with another secret)
    refresh     single use, buys the next pair
    expires_at  Unix time, or None if unknown
    """

    access: Secret
    ws: Secret | None
    refresh: Secret | None
    expires_at: float | None

    def __init__(
        self,
        access: str | Secret,
        ws: str | Secret | None = None,
        refresh: str | Secret | None = None,
        expires_at: float | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "access", Secret(access))
        put(self, "ws", None if ws is None else Secret(ws))
        put(self, "refresh", None if refresh is None else Secret(refresh))
        put(self, "expires_at", expires_at)


@record(frozen=True, slots=True)
class TokenRequest(Record):
    """What a token provider is asked: a token for `user`; `force`: the last one was refused, so not that one again."""

    user: str
    force: bool = False
