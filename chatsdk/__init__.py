"""chatsdk: a blocking, thread-safe chat client whose messages arrive.

This is the user's door. Plugin authors come in by `chatsdk.plugin`; nothing else is promised. Names are loaded when
they are first used: importing the package costs next to nothing and starts nothing.

    from chatsdk import ChatClient

    with ChatClient() as chat:
        chat.send("general", "deploy finished")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers see; at run time __getattr__ loads the same names from the same homes
    from .auth import SignedTokens as SignedTokens
    from .client import ChatClient as ChatClient
    from .core import errors as errors
    from .core import events as events
    from .core.errors import BadRequest as BadRequest
    from .core.errors import CaptivePortalError as CaptivePortalError
    from .core.errors import ChatError as ChatError
    from .core.errors import CircuitOpenError as CircuitOpenError
    from .core.errors import Conflict as Conflict
    from .core.errors import ConnectionFailedError as ConnectionFailedError
    from .core.errors import ConnectTimeoutError as ConnectTimeoutError
    from .core.errors import DeadlineExceeded as DeadlineExceeded
    from .core.errors import Forbidden as Forbidden
    from .core.errors import InvalidArgument as InvalidArgument
    from .core.errors import InvalidMessage as InvalidMessage
    from .core.errors import InvalidResponseError as InvalidResponseError
    from .core.errors import KeyReusedError as KeyReusedError
    from .core.errors import MessageRejected as MessageRejected
    from .core.errors import NotAcceptedError as NotAcceptedError
    from .core.errors import NotFound as NotFound
    from .core.errors import NotSentError as NotSentError
    from .core.errors import OutboxFullError as OutboxFullError
    from .core.errors import OutcomeUnknownError as OutcomeUnknownError
    from .core.errors import PluginError as PluginError
    from .core.errors import RateLimited as RateLimited
    from .core.errors import ServerError as ServerError
    from .core.errors import SettingsError as SettingsError
    from .core.errors import StatusError as StatusError
    from .core.errors import StorageError as StorageError
    from .core.errors import TokenExpiredError as TokenExpiredError
    from .core.errors import TokenUnavailableError as TokenUnavailableError
    from .core.errors import TooLarge as TooLarge
    from .core.errors import Unauthorized as Unauthorized
    from .core.models import Attachment as Attachment
    from .core.models import Channel as Channel
    from .core.models import FlushReport as FlushReport
    from .core.models import Member as Member
    from .core.models import Message as Message
    from .core.models import Presence as Presence
    from .core.models import Reaction as Reaction
    from .core.models import SearchHit as SearchHit
    from .core.models import SearchPage as SearchPage
    from .core.models import User as User
    from .core.settings import Settings as Settings
    from .core.store import Reason as Reason
    from .core.store import State as State
    from .core.store import Stats as Stats
    from .core.tokens import Secret as Secret
    from .core.tokens import Token as Token
    from .core.tokens import TokenRequest as TokenRequest
    from .resources.receipt import Receipt as Receipt

_HOMES = {
    "auth": ("SignedTokens",),
    "client": ("ChatClient",),
    "core": ("errors", "events"),
    "core.errors": (
        "BadRequest",
        "CaptivePortalError",
        "ChatError",
        "CircuitOpenError",
        "Conflict",
        "ConnectTimeoutError",
        "ConnectionFailedError",
        "DeadlineExceeded",
        "Forbidden",
        "InvalidArgument",
        "InvalidMessage",
        "InvalidResponseError",
        "KeyReusedError",
        "MessageRejected",
        "NotAcceptedError",
        "NotFound",
        "NotSentError",
        "OutboxFullError",
        "OutcomeUnknownError",
        "PluginError",
        "RateLimited",
        "ServerError",
        "SettingsError",
        "StatusError",
        "StorageError",
        "TokenExpiredError",
        "TokenUnavailableError",
        "TooLarge",
        "Unauthorized",
    ),
    "core.models": (
        "Attachment",
        "Channel",
        "FlushReport",
        "Member",
        "Message",
        "Presence",
        "Reaction",
        "SearchHit",
        "SearchPage",
        "User",
    ),
    "core.settings": ("Settings",),
    "core.store": ("Reason", "State", "Stats"),
    "core.tokens": ("Secret", "Token", "TokenRequest"),
    "resources.receipt": ("Receipt",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF), "__version__"]  # one table, not two lists to keep alike


if not TYPE_CHECKING:  # a checker that saw this would take every misspelt name for good

    def __getattr__(name: str) -> Any:
        home = _HOME_OF.get(name)
        if home is None:
            from difflib import get_close_matches

            near = get_close_matches(name, _HOME_OF, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"module 'chatsdk' has no attribute {name!r}{hint}")
        from importlib import import_module

        if home == "core":
            value: Any = import_module(f".core.{name}", __name__)
        else:
            value = getattr(import_module(f".{home}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
