"""What the development server can be told: one frozen record, the same for the command line, the fixture and tests.

Rules: a value here never changes while the server runs; what changes (faults, the clock) is switched over `/__dev__/`.
The lifetimes are the real server's (access 15 minutes, session 24 hours); rate limits are off, because most tests and
every demo would trip over the real 30 sends a minute.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from chatsdk.core.settings import DEVELOPMENT_CHANNELS

APP_ID = "00000000-0000-4000-8000-00000000c4a7"
GENERAL_CHANNEL_ID = DEVELOPMENT_CHANNELS["general"]
"""The channel every server starts with; its alias is `general`."""
WELL_KNOWN_USERS = (("alice", "Alice"), ("bob", "Bob"))
ALL_SCOPES = (
    "chat:read",
    "chat:write",
    "channel:create",
    "reaction:write",
    "typing:write",
    "upload:write",
    "search:read",
)
"""Every scope the contract knows (section 4); `connect` grants them all, unlike the original."""


@dataclass(frozen=True)
class ServerSettings:
    """How one development server runs.

    `host`/`port`: where it listens; port 0 lets the system choose. `data`: the SQLite file, or `:memory:`.
    `token_ttl`, `access_ttl`, `refresh_ttl`: seconds that printed tokens, connect's tokens and its sessions live.
    `rate_limits`: the contract's limits with 429 and Retry-After. `keep_alive`: seconds until an idle connection ends.
    `allow_remote`: permits a host that other machines can reach. `ready_file`: written once the server answers.
    `exit_with_stdin`: end when standard input ends, so that a server never outlives the test that started it.

    Of the realtime side: `ping_interval` and `pong_timeout`, seconds (Centrifugo's defaults; 0 pings nobody);
    `expired_close_delay` and `expired_unsubscribe_delay`: seconds after a token's end until the connection is closed
    and the subscription ended (as seen at the real server); `history_size`: publications kept of a stream;
    `no_recovery`: `chat` streams cannot be recovered, which is how the ChatSDK server's own Centrifugo is set up.
    """

    host: str = "127.0.0.1"
    port: int = 0
    data: str = ":memory:"
    token_ttl: float = 24 * 3600.0
    access_ttl: float = 900.0
    refresh_ttl: float = 24 * 3600.0
    rate_limits: bool = False
    keep_alive: float = 5.0
    allow_remote: bool = False
    ready_file: str | None = None
    exit_with_stdin: bool = False
    ping_interval: float = 25.0
    pong_timeout: float = 8.0
    expired_close_delay: float = 25.0
    expired_unsubscribe_delay: float = 25.0
    history_size: int = 100
    no_recovery: bool = False


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine. Unknown names count as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
