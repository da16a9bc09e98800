"""All settings, in one table.

Each field of `Settings` is a row: its default, what is allowed, one line of meaning. Its other names follow from the
field's name: `timeout` is `CHATSDK_TIMEOUT` in the environment, `timeout` in the TOML file and as an argument, and
`--timeout` where the row has a flag. The README's table is made from here. `resolve` finds the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import Any

from . import backoff, values
from .errors import SettingsError
from .record import Record, record
from .timeouts import TIMEOUTS
from .tokens import Secret
from .values import Kind

PREFIX = "CHATSDK_"

CIRCUITS: Mapping[str, Mapping[str, float]] = {
    "default": {"circuit_failures": 5, "circuit_open_first": 1.0, "circuit_open_max": 60.0},
    "standard": {"circuit_failures": 5, "circuit_open_first": 30.0, "circuit_open_max": 30.0},
    "ai": {"circuit_failures": 3, "circuit_open_first": 60.0, "circuit_open_max": 60.0},
    "critical": {"circuit_failures": 3, "circuit_open_first": 15.0, "circuit_open_max": 15.0},
}
"""Presets of circuits: `default` opens 1 s x2 up to 60 s (a 3 s outage must not cost 60); the others are seed 003's,
which stay open for one fixed time."""

PRESETS: Mapping[str, Mapping[str, Mapping[str, float]]] = {"timeouts": TIMEOUTS, "circuit": CIRCUITS}
"""What each preset setting may be, and what it then sets."""

LOG_LEVELS = ("debug", "info", "warning", "error")


DEVELOPMENT_CHANNELS: Mapping[str, str] = {"general": "00000000-0000-7000-8000-000000000001"}
"""Aliases that are always there: the channel that every development server has. No server takes that word for an id, so
it hides nothing; an alias of the settings by that name comes first."""


def _row(
    default: Any, kind: Kind, doc: str, *, flag: str | None = None, secret: bool = False, toml: bool = True
) -> Any:
    return field(default=default, metadata={"kind": kind, "doc": doc, "flag": flag, "secret": secret, "toml": toml})


@record(frozen=True, slots=True, kw_only=True)
class Setting(Record):
    """A row of the table. `key` and `flag` are None where the setting has none."""

    name: str
    kind: Kind
    default: Any
    environ: str
    key: str | None
    flag: str | None
    secret: bool
    doc: str


@record(frozen=True, kw_only=True)
class Settings(Record):
    """The settings in force. `chatsdk.config.load_settings` finds them; times are in seconds."""

    # whom to talk to, and as whom
    url: str = _row("", values.url("http", "https"), "the chat server", flag="--url")
    user: str = _row("", values.text(255), "on whose behalf; without it, the token's user", flag="--user")
    token: Secret | None = _row(None, values.optional(values.SECRET), "access token", secret=True)
    token_file: str = _row("", values.PATH, "file with the token; read again when it changes", flag="--token-file")
    token_command: tuple[str, ...] = _row((), values.COMMAND, "program that prints a token", secret=True)
    refresh_token: Secret | None = _row(None, values.optional(values.SECRET), "buys the next token, once", secret=True)
    ws_token: Secret | None = _row(None, values.optional(values.SECRET), "the websocket's token", secret=True)
    refresh_before: float = _row(300.0, values.seconds(), "how long before it expires a token is refreshed")
    users_kept: int = _row(1000, values.integer(1), "idle users whose tokens are kept in memory, where there are many")
    profile: str = _row("default", values.NAME, "which profile, and which outbox", flag="--profile", toml=False)
    config: str = _row("", values.PATH, "the TOML file to read", flag="--config", toml=False)
    backend: str = _row("chatsdk", values.NAME, "the chat system; others come from plugins")

    # how long
    send_wait: float = _row(10.0, values.seconds(), "how long send() waits for delivery; 0: it returns at once")
    timeouts: str = _row(
        "standard", values.choice(*TIMEOUTS), "preset of `timeout` and `connect_timeout`, then for all calls"
    )
    timeout: float = _row(
        10.0, values.seconds(zero=False), "a call's time, with retries and waits; unset: by its kind", flag="--timeout"
    )
    connect_timeout: float = _row(5.0, values.seconds(zero=False), "time for one connection; unset: by its kind")
    lock_timeout: float = _row(2.0, values.seconds(), "how long send() waits for the outbox file")
    close_timeout: float = _row(5.0, values.seconds(), "how long close() waits for what is under way")
    exit_timeout: float = _row(2.0, values.seconds(), "how long the outbox drains at interpreter exit")

    # trying again
    retry: str = _row("default", values.choice(*backoff.PRESETS), "preset of retries")
    retry_tries: int | None = _row(None, values.optional(values.integer(1, 1000)), "tries, if not the preset's")
    retry_first: float | None = _row(None, values.optional(values.seconds()), "first wait, if not the preset's")
    retry_cap: float | None = _row(None, values.optional(values.seconds()), "longest wait, if not the preset's")
    retry_budget: int = _row(500, values.integer(1), "what retries may spend in an outage; each costs 5, or 10")
    circuit: str = _row("default", values.choice(*CIRCUITS), "preset of `circuit_failures` and `circuit_open_*`")
    circuit_failures: int = _row(5, values.integer(1), "failures within the window that open a circuit")
    circuit_window: float = _row(120.0, values.seconds(zero=False), "the window")
    circuit_open_first: float = _row(1.0, values.seconds(zero=False), "how long it is open at first; then doubled")
    circuit_open_max: float = _row(60.0, values.seconds(zero=False), "how long it is open at most")
    circuit_successes: int = _row(2, values.integer(1), "successes that close it")

    # the outbox
    background: bool = _row(True, values.FLAG, "deliver in threads; false: in send() and flush() only")
    workers: int = _row(8, values.integer(1, 256), "threads that deliver, at most")
    state_dir: str = _row("", values.PATH, "where outboxes lie; without it, as the system has it", flag="--state-dir")
    ttl: float = _row(86400.0, values.seconds(zero=False), "how long a message may wait before it dies", flag="--ttl")
    key_retention: float = _row(
        values.MAX_SECONDS, values.seconds(zero=False), "how long the server knows keys; `ttl` must not be longer"
    )
    max_pending: int = _row(1_000_000, values.integer(1), "messages that may wait")
    max_bytes: int = _row(2**30, values.size(2**16), "bytes that waiting and dead messages may take")
    max_strikes: int = _row(20, values.integer(1), "answers of 500 after which a message is poison")
    sweep_interval: float = _row(30.0, values.seconds(zero=False), "how often the outbox is looked through")

    # the wire
    proxy: Secret | None = _row(None, values.optional(values.PROXY), "proxy for all calls", secret=True)
    trust_env: bool = _row(True, values.FLAG, "obey HTTPS_PROXY, NO_PROXY and the like")
    ca_bundle: str = _row("", values.PATH, "certificates to trust, in place of the usual ones")
    loopback_only: bool = _row(False, values.FLAG, "refuse servers that are not on this machine, as tests want it")
    max_response_bytes: int = _row(16 * 2**20, values.size(1024), "longest answer that is read")
    dedup_window: float = _row(1.0, values.seconds(), "how long identical mutations share one call")
    dedup_channel_ttl: float = _row(30.0, values.seconds(), "how long channels are answered from the cache")
    dedup_message_ttl: float = _row(5.0, values.seconds(), "how long messages are answered from the cache")

    # realtime
    ws_url: str = _row("", values.url("ws", "wss"), "the realtime server", flag="--ws-url")
    realtime: str = _row("centrifugo", values.choice("centrifugo", "json"), "the realtime server's protocol")
    reconnect: str = _row(
        "forever", values.choice(*backoff.RECONNECTS), "preset: how soon it connects again, how often"
    )
    heartbeat: float = _row(30.0, values.seconds(zero=False), "silence after which a plain connection is probed")
    heartbeat_timeout: float = _row(10.0, values.seconds(zero=False), "how long an answer to that may take")
    handlers: int = _row(4, values.integer(1, 32), "threads that run handlers of what is received")
    quiet_check: float = _row(60.0, values.seconds(), "how often a quiet channel is looked up over HTTP; 0: never")
    poll_interval: float = _row(
        3.0, values.seconds(), "how often a channel is polled while the websocket cannot be had; 0: never"
    )
    subscription_rate: int = _row(60, values.integer(1), "subscription tokens that the server gives in a minute")

    # plugins
    discover: bool = _row(True, values.FLAG, "load installed plugins")
    strict: bool = _row(False, values.FLAG, "a plugin that cannot be loaded is an error")

    # what is said
    log: str = _row("", values.choice(*LOG_LEVELS), "log to standard error; unset: the application decides")

    channels: Mapping[str, str] = field(default_factory=lambda: DEVELOPMENT_CHANNELS)
    """Aliases: name to channel id."""
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each plugin is told, by its name."""
    warnings: tuple[str, ...] = ()
    """Names that were given and that nobody knows."""
    files: tuple[str, ...] = ()
    """The TOML files that were read."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def source(self, name: str) -> str:
        """Where a value came from: "default", "argument", "CHATSDK_TIMEOUT", "file:profile.NAME", "file" (its top
        level), or the preset that set it, as "timeouts=quick". Raises KeyError for a name that is no setting."""
        return self.sources.get(ROWS[name].name, "default")

    def is_given(self, name: str) -> bool:
        """Whether somebody set it, also to its default."""
        return self.source(name) != "default" or getattr(self, name) != ROWS[name].default

    def require(self, name: str) -> Any:
        """The value of a setting that has no default. Raises SettingsError, with all its names, if it is not set."""
        value = getattr(self, name)
        if value is None or value == "" or value == ():
            row = ROWS[name]
            ways = [f"{name}=... as an argument", f"{row.environ} in the environment"]
            ways += [f"`{row.key} = ...` in the TOML file"] if row.key else []
            ways += [row.flag] if row.flag else []
            raise SettingsError(f"{name} is not set ({row.doc})", code="missing", hint="give " + ", or ".join(ways))
        return value

    def backoff(self) -> backoff.Backoff:
        """The retry preset, with what `retry_tries`, `retry_first` and `retry_cap` change of it."""
        preset = backoff.PRESETS[self.retry]
        return replace(
            preset,
            tries=preset.tries if self.retry_tries is None else self.retry_tries,
            first=preset.first if self.retry_first is None else self.retry_first,
            cap=preset.cap if self.retry_cap is None else self.retry_cap,
        )

    def show(self, name: str) -> str:
        """A value as people may see it: a secret is "***"."""
        value = getattr(self, name)
        if ROWS[name].secret:
            return "***" if value else ""
        return ROWS[name].kind.show(value)

    def __repr__(self) -> str:
        given = [f"{row.name}={self.show(row.name)!r}" for row in TABLE if self.source(row.name) != "default"]
        return f"Settings({', '.join(given)})"


TABLE: tuple[Setting, ...] = tuple(
    Setting(
        name=each.name,
        kind=each.metadata["kind"],
        default=each.default,
        environ=PREFIX + each.name.upper(),
        key=each.name if each.metadata["toml"] else None,
        flag=each.metadata["flag"],
        secret=each.metadata["secret"],
        doc=each.metadata["doc"],
    )
    for each in fields(Settings)
    if each.metadata
)
"""The one table."""

ROWS: Mapping[str, Setting] = {row.name: row for row in TABLE}


def settings_table() -> str:
    """The table as Markdown, for the README."""
    lines = ["| setting | environment | flag | default | meaning |", "|---|---|---|---|---|"]
    for row in TABLE:
        name = f"`{row.name}`" if row.key else f"`{row.name}` (not in the file)"
        flag = f"`{row.flag}`" if row.flag else ""
        default = "" if row.default in (None, "", ()) else f"`{row.kind.show(row.default)}`"
        lines.append(f"| {name} | `{row.environ}` | {flag} | {default} | {row.doc} |")
    return "\n".join(lines) + "\n"
