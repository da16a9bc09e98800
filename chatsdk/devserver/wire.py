"""The transport under a request, for faults that no HTTP answer can express.

`WireProtocol` is uvicorn's h11 protocol that hands its asyncio transport to the application, in the ASGI scope's
`state`. A handler of a fault then writes to the wire itself and ends the connection; `gone` waits until uvicorn knows.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

_TRANSPORT = "chatsdk_transport"


class WireProtocol(H11Protocol):
    """One connection whose transport the application can reach."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # A dict of its own for each connection: uvicorn shares the one it gives to all of them.
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        # Head and body are two writes: with Nagle's algorithm the second waits 40 ms for the peer's delayed ACK.
        # asyncio sees to it only for sockets made with an explicit protocol number.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)


def transport_of(scope: Scope) -> asyncio.Transport:
    """The transport of the connection that a request came in on."""
    return cast(asyncio.Transport, scope["state"][_TRANSPORT])


def reset(transport: asyncio.Transport) -> None:
    """Ends the connection with an RST: the peer's next read or write fails with ECONNRESET."""
    found = transport.get_extra_info("socket")
    if found is not None:
        # No lingering: what is unsent is thrown away, and the close is not a FIN.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def head(status: int, headers: Mapping[str, str], length: int) -> bytes:
    """The head of an answer that is written past uvicorn."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode("latin-1")


async def gone(receive: Receive) -> None:
    """Returns once uvicorn has seen the end of the connection, so that it does not try to answer by itself."""
    while (await receive())["type"] != "http.disconnect":
        pass
