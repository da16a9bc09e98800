"""Settings that make no sense are refused where they are read, with their origin; unknown names are warned of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient, PluginError, SettingsError, State
from chatsdk.devserver.process import DevServer


class _Thing:
    """Something that nobody expects, shown the same in each run."""

    def __repr__(self) -> str:
        return "a thing"


NOTHING_LIKE_IT = _Thing()


def refused(**given: Any) -> SettingsError:
    """Making a client raises SettingsError, which says what to do."""
    with pytest.raises(SettingsError) as caught:
        ChatClient(**given)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHATSDK_TIMEOUT", "abc"),
        ("CHATSDK_TIMEOUT", "-1"),
        ("CHATSDK_TIMEOUT", "0"),
        ("CHATSDK_TIMEOUT", "nan"),
        ("CHATSDK_TIMEOUT", "inf"),
        ("CHATSDK_TIMEOUT", "1e9999"),
        ("CHATSDK_MAX_PENDING", "1.5"),
        ("CHATSDK_MAX_PENDING", "9" * 5000),
        ("CHATSDK_WORKERS", "0"),
        ("CHATSDK_BACKGROUND", "maybe"),
        ("CHATSDK_RETRY", "never"),
        ("CHATSDK_URL", "ftp://127.0.0.1"),
        ("CHATSDK_URL", "127.0.0.1:80"),
        ("CHATSDK_URL", "http://127.0.0.1:99999"),
        ("CHATSDK_PROFILE", "../up"),
        ("CHATSDK_TTL", "100y"),
        ("CHATSDK_CONFIG", "/does/not/exist.toml"),
        ("CHATSDK_BACKEND", "a b"),
    ],
)
def test_variable_that_makes_no_sense(
    name: str, value: str, server: DevServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and nothing was begun."""
    monkeypatch.setenv("CHATSDK_URL", server.url)
    monkeypatch.setenv(name, value)
    assert name in str(refused())


@pytest.mark.parametrize(
    "given",
    [
        {"timeout": "soon"},
        {"timeout": math.nan},
        {"timeout": [5]},
        {"timeout": True},
        {"timout": 5},
        {"workers": 10**6},
        {"url": 5},
        {"url": ""},
        {"token": b"bytes"},
        {"token": "line\nbreak"},
        {"user": "a\0b"},
        {"state_dir": "relative/path"},
        {"channels": "general"},
        {"channels": {"general": 5}},
        {"plugins": [NOTHING_LIKE_IT], "strict": True},
        {"ttl": 100, "key_retention": 50},
    ],
    ids=repr,
)
def test_argument_that_makes_no_sense(given: dict[str, Any], server: DevServer, channel: str) -> None:
    """It is named by the client, or by the first call that needs it."""
    with pytest.raises((SettingsError, PluginError)) as caught:
        ChatClient(**{"url": server.url, "token": server.tokens["alice"], **given}).send(channel, "text")
    assert caught.value.hint


@pytest.mark.parametrize("url", ["http://127.0.0.1/?token=hush", "http://bob:hush@127.0.0.1", "wss://127.0.0.1?hush"])
def test_address_with_a_secret_in_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and not shown."""
    assert "hush" not in str(refused(url=url))
    monkeypatch.setenv("CHATSDK_URL", url)
    assert "hush" not in str(refused())


def test_nothing_is_set(channel: str) -> None:
    """Without a URL, and without a token, the error names the ways to give one."""
    assert "CHATSDK_URL" in str(refused())
    with ChatClient("http://127.0.0.1:9") as chat, pytest.raises(SettingsError, match="CHATSDK_TOKEN"):
        chat.channels.get(channel)


def test_unknown_names_are_warned_of(
    server: DevServer, connect: Callable[..., ChatClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, channel: str
) -> None:
    """A misspelt variable or key is no error, but it is said, with what may have been meant; the client works."""
    file = tmp_path / "config.toml"
    file.write_text('timeuot = 5\n[profile.default]\nstate_dirr = "/var/x"\n')
    monkeypatch.setenv("CHATSDK_TIMEUOT", "5")
    with pytest.warns(RuntimeWarning) as warned:
        chat = connect(config=str(file))
    said = "\n".join(str(each.message) for each in warned)
    for name in (
        "CHATSDK_TIMEUOT in the environment is no setting; did you mean CHATSDK_TIMEOUT?",
        "timeuot",
        "state_dirr",
    ):
        assert name in said
    assert {each.filename for each in warned} == {__file__.replace("test_bad_settings", "conftest")}
    assert chat.send(channel, "text").state is State.SENT


@pytest.mark.parametrize(
    "content", [b"timeout = ", b"\xff\xfe", b"[" * 5000, b"timeout = 'abc'", b"profile = 5", b"\0"]
)
def test_file_that_makes_no_sense(content: bytes, tmp_path: Path, server: DevServer) -> None:
    """The file is named; none of its values is shown."""
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    assert str(file) in str(refused(url=server.url, config=str(file)))
