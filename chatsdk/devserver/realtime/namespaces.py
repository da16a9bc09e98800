"""The namespaces of streams: those that the exchanges with a real Centrifugo were recorded with.

    name      history    recovery             presence  joins told  subscribers may
    chat      100, 24 h  if asked for         kept      to all      listen
    plain     100, 24 h  no                   kept      to all      listen
    forced    100, 24 h  always               kept      no          listen, publish, read history and presence
    user      none       no                   no        no          listen

The ChatSDK server's own configuration has no recovery in `chat` either (contract, 11.3): the setting `no_recovery`
makes it so here. `workspace` and `app` streams are as `user`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Namespace:
    """What holds for the streams of one name. `history`: publications kept; 0 means that none are, nor offsets."""

    history: int = 0
    recovery: bool = False
    force_recovery: bool = False
    presence: bool = False
    joins: bool = False
    open_to_subscribers: bool = False


_CHAT = Namespace(history=100, recovery=True, presence=True, joins=True)
_TABLE = {
    "chat": _CHAT,
    "plain": replace(_CHAT, recovery=False),
    "forced": Namespace(history=100, recovery=True, force_recovery=True, presence=True, open_to_subscribers=True),
    "user": Namespace(),
    "workspace": Namespace(),
    "app": Namespace(),
}
HISTORY_TTL_MS = 24 * 3600 * 1000


class Namespaces:
    """The table, with the settings of one server worked in."""

    def __init__(self, *, history_size: int, no_recovery: bool) -> None:
        self._table = {
            name: replace(namespace, history=max(1, history_size) if namespace.history else 0)
            for name, namespace in _TABLE.items()
        }
        if no_recovery:
            self._table["chat"] = replace(self._table["chat"], recovery=False)

    def of(self, stream: str) -> Namespace | None:
        """The namespace of a stream: what stands before its first colon; None where there is no such."""
        name, colon, _ = stream.partition(":")
        return self._table.get(name) if colon else None
