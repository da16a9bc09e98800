"""Where values come from, which of them wins, and what is said about those that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.errors import SettingsError
from chatsdk.core.resolve import resolve
from chatsdk.core.settings import TABLE, Settings

FILE: dict[str, Any] = {
    "timeout": 4,
    "retry": "patient",
    "channels": {"general": "c-1", "ops": "c-2"},
    "profile": {"alerts": {"timeout": 6, "channels": {"ops": "c-3"}}, "other": {}},
}
FILES: list[tuple[str, dict[str, Any]]] = [("config.toml", FILE)]


def test_precedence() -> None:
    """Arguments > environment > profile > top level of the file > default, and each value knows where it is from."""
    steps: list[tuple[dict[str, Any], dict[str, str], Any, str | None, float, str]] = [
        ({}, {}, (), None, 10.0, "default"),
        ({}, {}, FILES, None, 4.0, "file"),
        ({}, {}, FILES, "alerts", 6.0, "file:profile.alerts"),
        ({}, {"CHATSDK_TIMEOUT": "8"}, FILES, "alerts", 8.0, "CHATSDK_TIMEOUT"),
        ({"timeout": 9}, {"CHATSDK_TIMEOUT": "8"}, FILES, "alerts", 9.0, "argument"),
    ]
    for arguments, environ, files, profile, value, source in steps:
        settings = resolve(arguments, environ, files, profile)
        assert (settings.timeout, settings.source("timeout")) == (value, source)


def test_what_is_not_given() -> None:
    """None among the arguments and an empty variable are as if they were not there."""
    settings = resolve({"timeout": None, "url": None}, {"CHATSDK_TIMEOUT": "", "CHATSDK_TOKEN": ""}, FILES)
    assert (settings.timeout, settings.token, settings.url) == (4.0, None, "")


def test_preset_fills_what_nobody_set() -> None:
    """A value that somebody set wins over a preset, wherever the preset was set."""
    settings = resolve({"timeouts": "quick"}, {}, [("f", {"timeout": 7})])
    assert (settings.timeout, settings.source("timeout")) == (7.0, "file")
    assert (settings.connect_timeout, settings.source("connect_timeout")) == (3.0, "timeouts=quick")


def test_profiles() -> None:
    """The profile is an argument or CHATSDK_PROFILE; one that no file knows, though there are some, is misspelt."""
    assert resolve({"profile": "alerts"}, {"CHATSDK_PROFILE": "other"}, FILES).source("profile") == "argument"
    assert resolve({}, {"CHATSDK_PROFILE": "alerts"}, FILES).profile == "alerts"
    assert resolve({}, {}, FILES).profile == "default"
    assert resolve({}, {}, [("f", {"profile": {"default": {"timeout": 3}}})]).timeout == 3.0
    assert resolve({"profile": "any"}, {}).profile == "any"
    with pytest.raises(SettingsError, match="did you mean alerts"):
        resolve({}, {"CHATSDK_PROFILE": "alert"}, FILES)


def test_channel_aliases() -> None:
    """A profile's aliases stand beside those of the top level and win over them; an argument's win over both."""
    assert resolve({}, {}, FILES, "alerts").channels == {"general": "c-1", "ops": "c-3"}
    assert resolve({"channels": {"ops": "c-4"}}, {}, FILES).channels == {"general": "c-1", "ops": "c-4"}


def test_the_development_channel_is_always_there() -> None:
    """`general` names the channel of every development server, until somebody gives the name to another one."""
    assert resolve({}, {}).channels == Settings().channels == {"general": "00000000-0000-7000-8000-000000000001"}
    assert resolve({}, {}, [("f", {"channels": {"general": "c-9"}})]).channels["general"] == "c-9"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]"])
def test_loopback_only_lets_loopback_through(host: str) -> None:
    """With a port or without."""
    given_ = {"loopback_only": True, "url": f"http://{host}:5500", "ws_url": f"ws://{host}"}
    assert resolve(given_, {}).loopback_only


def test_several_files() -> None:
    """The first file wins, as a whole: its top level too stands before the next file's profile."""
    files: list[tuple[str, dict[str, Any]]] = [
        ("a", {"timeout": 3}),
        ("b", {"timeout": 4, "retry": "patient", "profile": {"x": {"timeout": 5}}}),
    ]
    settings = resolve({}, {}, files, "x")
    assert (settings.timeout, settings.retry, settings.files) == (3.0, "patient", ("a", "b"))


ABSURD: list[tuple[dict[str, Any], dict[str, str], dict[str, Any], list[str]]] = [
    ({}, {"CHATSDK_TIMEOUT": "abc"}, {}, ["CHATSDK_TIMEOUT", "'abc'", "seconds"]),
    ({"timeout": -1}, {}, {}, ["argument", "timeout", "-1"]),
    ({"timeout": float("nan")}, {}, {}, ["argument", "nan"]),
    ({"timeout": float("inf")}, {}, {}, ["argument", "inf"]),
    ({}, {}, {"timeout": "soon"}, ["config.toml", "timeout", "'soon'"]),
    (
        {"profile": "alerts"},
        {},
        {"profile": {"alerts": {"workers": 0}}},
        ["config.toml", "[profile.alerts]", "workers"],
    ),
    ({"url": "chat.example"}, {}, {}, ["url", "https://host"]),
    ({}, {"CHATSDK_URL": "https://x\nHost: y"}, {}, ["CHATSDK_URL", "blanks"]),
    ({"retry": "never"}, {}, {}, ["default, standard, patient"]),
    ({"ttl": "8d", "key_retention": "7d"}, {}, {}, ["ttl = 8 d (argument)", "key_retention = 7 d (argument)"]),
    ({"circuit_open_first": 90}, {}, {}, ["circuit_open_first", "circuit_open_max = 1 min (default)"]),
    ({"loopback_only": True, "url": "https://chat.example"}, {}, {}, ["url (argument)", "loopback_only (argument)"]),
    ({"url": "http://127.evil.example"}, {"CHATSDK_LOOPBACK_ONLY": "1"}, {}, ["(CHATSDK_LOOPBACK_ONLY)"]),
    ({"tiemout": 3}, {}, {}, ["'tiemout'", "did you mean timeout"]),
    ({"channels": {"a": 7}}, {}, {}, ["channels.a", "channel's id"]),
    ({"channels": "a"}, {}, {}, ["channels", "table"]),
    ({}, {}, {"plugins": 7}, ["config.toml", "plugins", "table"]),
    ({}, {}, {"plugins": {"a": 7}}, ["plugins.a", "table"]),
    ({}, {}, {"profile": 7}, ["[profile]", "table"]),
    ({"profile": "a"}, {}, {"profile": {"a": 7}}, ["[profile.a]", "table"]),
    ({"profile": "../x"}, {}, {}, ["profile", "a name of 1 to 64"]),
]


@pytest.mark.parametrize(("arguments", "environ", "file", "words"), ABSURD)
def test_what_makes_no_sense_is_said(
    arguments: dict[str, Any], environ: dict[str, str], file: dict[str, Any], words: list[str]
) -> None:
    """The error names the value, where it came from, and what is allowed; it is a ValueError too."""
    with pytest.raises(SettingsError) as caught:
        resolve(arguments, environ, [("config.toml", file)] if file else ())
    assert isinstance(caught.value, ValueError)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "environ", "file"),
    [
        ({"token": "canary two"}, {}, {}),
        ({}, {"CHATSDK_TOKEN": "canary\ntwo"}, {}),
        ({}, {}, {"refresh_token": ["canary"]}),
        ({"proxy": "socks5://user:canary@x"}, {}, {}),
        ({"url": "https://user:canary@x"}, {}, {}),
        ({}, {"CHATSDK_WS_URL": "wss://canary@x"}, {}),
        ({"token_command": "vault 'canary"}, {}, {}),
    ],
)
def test_no_error_shows_a_secret(arguments: dict[str, Any], environ: dict[str, str], file: dict[str, Any]) -> None:
    """A refused secret, or an address with a password in it, is named and not shown, nor kept as a cause."""
    with pytest.raises(SettingsError) as caught:
        resolve(arguments, environ, [("f", file)])
    assert "canary" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_long_values_are_cut() -> None:
    """An error stays readable."""
    with pytest.raises(SettingsError) as caught:
        resolve({"timeout": "x" * 5000}, {})
    assert len(str(caught.value)) < 400


def test_unknown_names_outside_the_arguments_are_warnings() -> None:
    """Another version may know them; the nearest name that we know is said."""
    file = {"retyr": 1, "profile": {"a": {"urk": "x", "workers": 2}}, "profil": {}}
    settings = resolve({}, {"CHATSDK_TIMOUT": "3", "CHATSDK_PLUGIN_X_Y": "1", "HOME": "/"}, [("f.toml", file)], "a")
    assert [text.partition(";")[0] for text in settings.warnings] == [
        "CHATSDK_TIMOUT in the environment is no setting",
        "f.toml: [profile.a] urk is no setting",
        "f.toml: retyr is no setting",
        "f.toml: profil is no setting",
    ]
    assert "did you mean CHATSDK_TIMEOUT?" in settings.warnings[0]
    assert "did you mean retry?" in settings.warnings[2]


def test_names_that_only_some_places_know() -> None:
    """`config` and `profile` say which part of which file is read, so they can't stand in it."""
    settings = resolve({}, {}, [("f", {"config": "x"})])
    assert settings.config == ""
    assert settings.warnings == ("f: config is no setting",)


def test_plugin_settings() -> None:
    """A plugin gets its table, overlaid by its variables, under its own name, whatever letters that has."""
    file = {"plugins": {"my-filter": {"words": ["a"], "strict": False}, "audit": {}}}
    environ = {
        "CHATSDK_PLUGIN_MY_FILTER_STRICT": "1",
        "CHATSDK_PLUGIN_OTHER_KEY": "k",
        "CHATSDK_PLUGIN_": "",
        "CHATSDK_PLUGIN_BARE": "",
    }
    plugins = resolve({}, environ, [("f", file)]).plugins
    assert plugins["my-filter"] == {"words": ["a"], "strict": "1"}
    assert plugins.get("other") == {"key": "k"}
    assert plugins.get("my", {}) == {"filter_strict": "1"}
    assert plugins.get("nobody", {}) == {}
    assert list(plugins) == ["my-filter", "audit", "other"]
    assert len(plugins) == 3


NAMES = [row.name for row in TABLE] + ["channels", "plugins", "nonsense"]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.text())
    | st.dictionaries(st.text(), st.text())
)
VARIABLES = st.dictionaries(
    st.sampled_from([row.environ for row in TABLE] + ["CHATSDK_X", "CHATSDK_PLUGIN_A_B"]), st.text()
)
TOML = st.dictionaries(st.sampled_from([*NAMES, "profile"]) | st.text(), VALUES)


@given(
    arguments=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    environ=VARIABLES,
    files=st.lists(
        st.tuples(st.just("f"), TOML | st.fixed_dictionaries({"profile": st.dictionaries(st.text(), TOML)})), max_size=2
    ),
    profile=st.none() | st.text(max_size=5),
)
def test_resolve_raises_nothing_but_settings_errors(
    arguments: dict[str, Any], environ: dict[str, str], files: list[tuple[str, dict[str, Any]]], profile: str | None
) -> None:
    """Whatever stands in arguments, environment and files: settings, or a SettingsError."""
    try:
        settings = resolve(arguments, environ, files, profile)
    except SettingsError:
        return
    assert isinstance(settings, Settings)
    assert all(settings.source(row.name) for row in TABLE)
    assert repr(settings)


@given(st.sampled_from([row for row in TABLE if row.secret]), st.text(min_size=6))
def test_no_text_of_a_secret_ever_shows(row: Any, text: str) -> None:
    """Whether it is taken or refused, no part of what is said holds it."""
    try:
        shown = repr(resolve({}, {row.environ: "canary" + text}))
    except SettingsError as error:
        shown = str(error)
    assert "canary" not in shown
