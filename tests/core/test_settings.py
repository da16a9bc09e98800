"""The table of settings: its rows, its names, its Markdown, and what may be seen of the values."""

from __future__ import annotations

import dataclasses

import pytest

from chatsdk.core import backoff
from chatsdk.core.errors import SettingsError
from chatsdk.core.resolve import resolve
from chatsdk.core.settings import CIRCUITS, PRESETS, ROWS, TABLE, Setting, Settings, settings_table
from chatsdk.core.timeouts import TIMEOUTS


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_each_row_is_whole(row: Setting) -> None:
    """A row has a meaning in words, names that follow from the field's, and a default that its own check allows."""
    assert row.doc
    assert row.kind.allowed
    assert row.environ == f"CHATSDK_{row.name.upper()}"
    assert row.flag in (None, f"--{row.name.replace('_', '-')}")
    if row.default not in (None, "", ()):
        assert row.kind.parse(row.default) == row.default
        assert row.kind.show(row.default)


def test_every_field_but_the_tables_is_a_row() -> None:
    """Nothing can be set that is not in the table."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields - set(ROWS) == {"channels", "plugins", "warnings", "files", "sources"}


def test_no_secret_can_be_given_on_the_command_line() -> None:
    """Everybody on the machine sees command lines."""
    assert not [row.name for row in TABLE if row.secret and row.flag]


def test_the_seeds_numbers_are_the_defaults() -> None:
    """The defaults are those of the design."""
    settings = Settings()
    assert (settings.send_wait, settings.timeout, settings.connect_timeout) == (10.0, 10.0, 5.0)
    assert (settings.lock_timeout, settings.close_timeout, settings.exit_timeout) == (2.0, 5.0, 2.0)
    assert (settings.ttl, settings.max_strikes, settings.sweep_interval) == (86400.0, 20, 30.0)
    assert (settings.circuit_failures, settings.circuit_window, settings.circuit_successes) == (5, 120.0, 2)
    assert (settings.circuit_open_first, settings.circuit_open_max) == (1.0, 60.0)
    assert (settings.dedup_channel_ttl, settings.dedup_message_ttl, settings.dedup_window) == (30.0, 5.0, 1.0)
    assert (settings.refresh_before, settings.retry_budget) == (300.0, 500)


@pytest.mark.parametrize(
    ("preset", "connect", "total"), [("quick", 3, 5), ("standard", 5, 10), ("heavy", 5, 30), ("ai", 5, 45)]
)
def test_timeout_presets(preset: str, connect: float, total: float) -> None:
    """Seed 003's four pairs."""
    settings = resolve({"timeouts": preset}, {})
    assert (settings.connect_timeout, settings.timeout) == (connect, total)


@pytest.mark.parametrize(
    ("preset", "failures", "first", "most"),
    [("default", 5, 1, 60), ("standard", 5, 30, 30), ("ai", 3, 60, 60), ("critical", 3, 15, 15)],
)
def test_circuit_presets(preset: str, failures: int, first: float, most: float) -> None:
    """Failures, and how long it stays open."""
    settings = resolve({"circuit": preset}, {})
    assert (settings.circuit_failures, settings.circuit_open_first, settings.circuit_open_max) == (
        failures,
        first,
        most,
    )


def test_presets_fill_rows_that_there_are() -> None:
    """A preset can't name a setting that nobody has, and its default changes no default."""
    for name, choices in PRESETS.items():
        for values in choices.values():
            assert values.keys() <= ROWS.keys()
            assert all(ROWS[target].kind.parse(value) == value for target, value in values.items())
        default = choices[ROWS[name].default]
        assert {target: ROWS[target].default for target in default} == dict(default)
    assert set(TIMEOUTS) | set(CIRCUITS) == {"quick", "standard", "heavy", "ai", "default", "critical"}


def test_retry_is_a_preset_with_changes() -> None:
    """`retry_tries` and its like change the preset; without them it is the preset."""
    assert Settings().backoff() == backoff.DEFAULT
    assert Settings(retry="patient").backoff() == backoff.PATIENT
    changed = resolve({"retry": "standard", "retry_tries": 7, "retry_cap": "5s"}, {}).backoff()
    assert (changed.tries, changed.first, changed.cap) == (7, backoff.STANDARD.first, 5.0)


def test_no_secret_is_seen() -> None:
    """Neither repr, str nor `show` gives a secret, nor what a plugin was told."""
    settings = resolve(
        {
            "token": "canary-1",
            "refresh_token": "canary-2",
            "ws_token": "canary-3",
            "proxy": "http://user:canary-4@proxy:1",
            "token_command": ["vault", "--password", "canary-5"],
            "plugins": {"audit": {"password": "canary-6"}},
        },
        {"CHATSDK_PLUGIN_AUDIT_KEY": "canary-7"},
    )
    seen = repr(settings) + str(settings) + repr(settings.plugins) + "".join(settings.show(row.name) for row in TABLE)
    assert "canary" not in seen
    assert settings.token is not None
    assert settings.token.reveal() == "canary-1"
    assert settings.show("token") == "***"
    assert Settings().show("token") == ""


def test_repr_shows_what_was_set() -> None:
    """The defaults would hide it."""
    assert repr(resolve({"timeout": "3s"}, {})) == "Settings(timeout='3 s')"


def test_what_is_missing_names_every_way_to_give_it() -> None:
    """The error of a missing setting says argument, variable, file and flag."""
    with pytest.raises(SettingsError) as caught:
        Settings().require("url")
    assert caught.value.code == "missing"
    for way in ("url=", "CHATSDK_URL", "TOML", "--url"):
        assert way in caught.value.hint
    assert Settings(url="https://x").require("url") == "https://x"


def test_the_table_as_markdown() -> None:
    """One line for each row, with its names and its default, and no cell that breaks the table."""
    lines = settings_table().splitlines()
    assert len(lines) == len(TABLE) + 2
    assert "| `timeout` | `CHATSDK_TIMEOUT` | `--timeout` | `10 s` |" in settings_table()
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}


def test_settings_are_frozen() -> None:
    """Nobody changes a setting under the feet of another part."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().timeout = 3  # type: ignore[misc]
