"""The table of operations: method, path, who may call it, which limit counts, which handler answers.

Rules: a path is matched segment by segment on its raw form, so that `%2F` stays inside a segment; a trailing slash, a
doubled slash and a wrong method are 404, as on the real server. An operation's name is what fault rules refer to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from chatsdk.devserver.answers import Answer
from chatsdk.devserver.limits import Policy

if TYPE_CHECKING:
    from chatsdk.devserver.world import Call

Handler = Callable[["Call"], Answer]


@dataclass(frozen=True)
class Operation:
    """One row of the table. `scope`: what the token must carry ("" for none); `public`: no token is looked at.

    `sends`: it is a try to send a message, and goes into the log of attempts.
    """

    name: str
    method: str
    path: str
    handler: Handler
    scope: str = ""
    limit: Policy | None = None
    public: bool = False
    sends: bool = False


class RouteTable:
    """Finds the operation of a request."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_shape: dict[tuple[str, int], list[tuple[list[str], Operation]]] = {}
        self.names: list[str] = []
        for operation in operations:
            segments = operation.path.split("/")
            self._by_shape.setdefault((operation.method, len(segments)), []).append((segments, operation))
            self.names.append(operation.name)

    def match(self, method: str, raw_path: str) -> tuple[Operation, Mapping[str, str]] | None:
        """The operation and its path parameters, decoded once. Fixed segments win over parameters by coming first."""
        parts = raw_path.split("/")
        for segments, operation in self._by_shape.get((method, len(parts)), ()):
            if all(want == got or (want[:1] == "{" and got) for want, got in zip(segments, parts, strict=True)):
                named = zip(segments, parts, strict=True)
                return operation, {want[1:-1]: unquote(got) for want, got in named if want[:1] == "{"}
        return None
