"""Every error of the SDK, as one tree.

    ChatError                       code, retryable, hint, request_id, maybe_done
      NotAcceptedError              send() refused the message; nothing happened
        InvalidMessage              (also ValueError) text, ids or types that no server would take
        KeyReusedError              the same key with another body
        OutboxFullError             max_pending or max_bytes reached
        StorageError                the state directory can't be written in time
      MessageRejected               the server refused it for good; it stands as a dead letter (`receipt`)
      NotSentError                  (also ConnectionError) nothing left this machine
        ConnectTimeoutError         (also TimeoutError)
        CircuitOpenError            retry_at, retry_after
        TokenUnavailableError       no token right now; asked again later
      OutcomeUnknownError           (also ConnectionError) it may have happened
        DeadlineExceeded            (also TimeoutError)
        CaptivePortalError          somebody else answered in the server's place
        InvalidResponseError        the answer can't be read
      StatusError                   status, response, retry_after
        BadRequest Unauthorized Forbidden NotFound Conflict TooLarge RateLimited ServerError
      TokenExpiredError             the session is lost for good; sign in again
      ConnectionFailedError         (also ConnectionError) realtime gave up
      InvalidArgument               (also ValueError) an argument of a direct call that no server would take
      SettingsError                 (also ValueError)
      PluginError                   plugin: whose it was

Rules. An error says whether the call may have happened (`maybe_done`) and whether trying again can help
(`retryable`); the retry layer and the outbox ask the error and keep no list of their own. Each has a `hint`: what to
do. All of them pickle. No message, hint or field ever holds a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .exchange import Response


class ChatError(Exception):
    """Base of all errors. `code`: a short stable word; `hint`: what to do; `request_id`: the call's correlation id."""

    default_code: ClassVar[str] = "error"
    default_hint: ClassVar[str] = ""
    default_retryable: ClassVar[bool] = False
    maybe_done: bool = False
    """True if the server may have done what was asked."""

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message or self.__class__.__name__)
        self.message = message or self.__class__.__name__
        self.code = self.default_code if code is None else code
        self.retryable = self.default_retryable if retryable is None else retryable
        self.hint = self.default_hint if hint is None else hint
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., ChatError], tuple[Any, ...]]:
        # Exception's own way calls __init__ with args, which loses keyword-only facts.
        state = dict(self.__dict__)
        state.pop("__notes__", None)
        return _rebuild, (self.__class__, self.args, state)

    def to_dict(self) -> dict[str, Any]:
        """What is stored and shown of it: `{"type", "code", "message", "hint", "status"?}`."""
        facts: dict[str, Any] = {
            "type": self.__class__.__name__,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
        }
        status = getattr(self, "status", None)
        if status is not None:
            facts["status"] = status
        return facts


def _rebuild(cls: type[ChatError], args: tuple[Any, ...], state: dict[str, Any]) -> ChatError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# ---- send() said no


class NotAcceptedError(ChatError):
    """The message was not accepted: it is not in the outbox and was not sent. `plugin`: who refused it, if one did."""

    default_code = "not_accepted"
    default_hint = "nothing happened; correct the message and send it again"

    def __init__(self, message: str = "", *, plugin: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.plugin = plugin


class InvalidMessage(NotAcceptedError, ValueError):
    """Text, ids or types that no server would take."""

    default_code = "invalid_message"


class KeyReusedError(NotAcceptedError):
    """The same key was used before, with another body."""

    default_code = "key_reused"
    default_hint = "use a new key for a new message; a key names one message for ever"


class OutboxFullError(NotAcceptedError):
    """The outbox holds as much as it may (`max_pending`, `max_bytes`)."""

    default_code = "outbox_full"
    default_hint = "let it drain (`chatsdk outbox run`), discard dead letters, or raise max_pending / max_bytes"


class StorageError(NotAcceptedError):
    """The state directory could not be read or written, or its lock was not free within `lock_timeout`."""

    default_code = "storage"
    default_hint = "look at the state directory: space, permissions, and processes that are stopped"


class MessageRejected(ChatError):
    """The server refused the message for good. It stands as a dead letter; `receipt` shows it."""

    default_code = "rejected"
    default_hint = "see `chatsdk outbox dead`; correct the cause, then retry or discard it"

    def __init__(self, message: str = "", *, receipt: Any = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.receipt = receipt

    def __reduce__(self) -> tuple[Callable[..., ChatError], tuple[Any, ...]]:
        rebuild, (cls, args, state) = super().__reduce__()
        receipt = state.get("receipt")
        if hasattr(receipt, "to_dict"):  # a live receipt holds the client; what travels is what it says
            state["receipt"] = receipt.to_dict()
        return rebuild, (cls, args, state)


# ---- the call didn't leave, or nobody knows


class NotSentError(ChatError, ConnectionError):
    """Nothing left this machine: the call has certainly not happened."""

    default_code = "not_sent"
    default_retryable = True
    default_hint = "check the network and the server's URL; trying again is safe"


class ConnectTimeoutError(NotSentError, TimeoutError):
    """No connection within the connect timeout or the deadline."""

    default_code = "connect_timeout"


class CircuitOpenError(NotSentError):
    """The server failed often enough that it is left alone for a while.

    `circuit`: its name; `retry_after`: seconds until the next try is let through, from when this was raised;
    `retry_at`: the same as Unix time.
    """

    default_code = "circuit_open"
    default_retryable = False  # the answer would be the same; wait for retry_at
    default_hint = "wait until retry_at; chat.circuits shows why it opened"

    def __init__(
        self, message: str = "", *, circuit: str = "", retry_after: float = 0.0, retry_at: float = 0.0, **facts: Any
    ) -> None:
        super().__init__(message or f"circuit {circuit!r} is open", **facts)
        self.circuit = circuit
        self.retry_after = retry_after
        self.retry_at = retry_at


class TokenUnavailableError(NotSentError):
    """There is no valid token right now, but there may be one later: a source failed, or refresh was not reached."""

    default_code = "token_unavailable"
    default_hint = "check the token source (provider, file, command) and the network"


class OutcomeUnknownError(ChatError, ConnectionError):
    """The request left, the answer did not come (whole): it may have happened."""

    default_code = "outcome_unknown"
    default_retryable = True
    default_hint = "read the object back before you do it again"
    maybe_done = True


class DeadlineExceeded(OutcomeUnknownError, TimeoutError):
    """The deadline passed while the answer was awaited."""

    default_code = "deadline"
    default_hint = "it may have happened: read back; raise `timeout` if the server is merely slow"


class CaptivePortalError(OutcomeUnknownError):
    """Somebody else answered in the server's place: HTML where JSON belongs, or a redirect to another host."""

    default_code = "captive_portal"
    default_hint = "sign in to this network in a browser, or check the server's URL and the proxy"


class InvalidResponseError(OutcomeUnknownError):
    """The answer can't be used: broken JSON, too large, cut off, or not about what was asked."""

    default_code = "invalid_response"
    default_hint = "check that the URL is a ChatSDK server and that no proxy changes its answers"


# ---- the server answered


class StatusError(ChatError):
    """The server answered with an error. `status`; `response`; `retry_after`: seconds it asks to wait, or None."""

    default_code = "status"
    default_hint = "status and message say why; request_id helps whoever runs the server"

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        response: Response | None = None,
        retry_after: float | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.status = status
        self.response = response
        self.retry_after = retry_after


class BadRequest(StatusError):
    """400 or 422: the request is wrong as it stands."""

    default_code = "bad_request"
    default_hint = "correct the arguments; the message names the field where the server did"


class Unauthorized(StatusError):
    """401, after one refresh and one retry."""

    default_code = "unauthorized"
    default_hint = "check the token; `chatsdk config` shows where it comes from"


class Forbidden(StatusError):
    """403: this user may not do that."""

    default_code = "forbidden"
    default_hint = "check membership of the channel and the token's scopes"


class NotFound(StatusError):
    """404."""

    default_code = "not_found"
    default_hint = "check the id"


class Conflict(StatusError):
    """409."""

    default_code = "conflict"
    default_hint = "read the object again and decide"


class TooLarge(StatusError):
    """413."""

    default_code = "too_large"
    default_hint = "send less at once"


class RateLimited(StatusError):
    """429: `retry_after` says how long to wait, in seconds (None if the server did not say)."""

    default_code = "rate_limited"
    default_retryable = True
    default_hint = "wait retry_after seconds"


class ServerError(StatusError):
    """5xx: the server failed; it may have happened."""

    default_code = "server_error"
    default_retryable = True
    default_hint = "try again later; request_id helps whoever runs the server"
    maybe_done = True


# ---- the rest


class TokenExpiredError(ChatError):
    """The session is lost for good: the refresh was refused and no other source has a token."""

    default_code = "token_expired"
    default_hint = "sign in again: chat.connect_user(user, token=...), or put a new token where it is read from"


class ConnectionFailedError(ChatError, ConnectionError):
    """The realtime connection gave up, or was told by the server to stay away."""

    default_code = "connection_failed"
    default_hint = "see chat.connection for the reason"


class InvalidArgument(ChatError, ValueError):
    """An argument of a direct call that no server would take; nothing was sent. (For sends: InvalidMessage.)"""

    default_code = "invalid_argument"
    default_hint = "correct the argument"


class SettingsError(ChatError, ValueError):
    """A setting is missing, unknown or makes no sense, or the state directory can't be used."""

    default_code = "settings"
    default_hint = "`chatsdk config` shows each value and where it came from"


class PluginError(ChatError):
    """A plugin raised. `plugin`: whose it was; `__cause__`: what it raised."""

    default_code = "plugin"
    default_hint = "update, repair or remove the plugin (`chatsdk plugins` lists them)"

    def __init__(self, message: str = "", *, plugin: str = "", **facts: Any) -> None:
        super().__init__(message or f"plugin {plugin!r} failed", **facts)
        self.plugin = plugin
