"""Settings as this machine gives them: which file is read, and where the outbox lies and may lie."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatsdk import config
from chatsdk.config import load_settings, prepare_directory, server_name, state_directory
from chatsdk.core.errors import SettingsError, StorageError

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give files away")


@pytest.fixture(autouse=True)
def _no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What this machine has in /etc is not part of a test, and neither is its umask."""
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "etc" / "config.toml")
    before = os.umask(0o022)
    yield
    os.umask(before)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def user_file() -> Path:
    return Path(os.environ["HOME"]) / ".config" / "chatsdk" / "config.toml"


# ---- which file


def test_the_first_file_that_there_is(tmp_path: Path) -> None:
    """Argument > CHATSDK_CONFIG > the user's configuration directory > /etc."""
    assert load_settings({}, {}).files == ()
    places = [config.SYSTEM_FILE, user_file(), tmp_path / "variable.toml", tmp_path / "argument.toml"]
    for number, path in enumerate(places):
        write(path, f"workers = {number + 1}")
    variable = {"CHATSDK_CONFIG": str(places[2])}
    assert load_settings({}, variable, config=places[3]).files == (str(places[3]),)
    assert load_settings({"config": str(places[3])}, variable).workers == 4
    settings = load_settings({}, variable)
    assert (settings.workers, settings.config, settings.source("config")) == (3, str(places[2]), "CHATSDK_CONFIG")
    assert load_settings({}, {}).workers == 2
    user_file().unlink()
    settings = load_settings({}, {})
    assert (settings.workers, settings.source("workers")) == (1, "file")


def test_a_file_of_the_working_directory_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns that directory would choose the server that gets the token."""
    for name in ("config.toml", "chatsdk.toml", ".chatsdk.toml", "chatsdk/config.toml"):
        write(tmp_path / name, "workers = 3")
    monkeypatch.chdir(tmp_path)
    assert load_settings({}, {}).files == ()


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless another one is given."""
    monkeypatch.setenv("CHATSDK_WORKERS", "3")
    assert load_settings({}).workers == 3
    assert load_settings({}, {}).workers == 8


BROKEN = [
    ("workers = ", "line 1"),
    ('url = "x"\nretry = "canary', "line 2"),
    ('url = "x"\nretry = "canary\ntimeout = 3\n', "line 2"),
    ("a = 1\na = 2\n", "line 2"),
    (b"\xff\xfe", "not UTF-8"),
    ("x" * (config.MAX_FILE_BYTES + 1), "longer than"),
    ("a = " + "[" * 5000, "nested"),
]


@pytest.mark.parametrize(("content", "word"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_named_with_its_line(content: str | bytes, word: str, tmp_path: Path) -> None:
    """And nothing of what stands in it is quoted: it may be a token."""
    path = tmp_path / "broken.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {}, config=path)
    assert str(path) in str(caught.value)
    assert word in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_bom_is_no_error(tmp_path: Path) -> None:
    """Some editors begin a file with one."""
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbfworkers = 3\n")
    assert load_settings({}, {}, config=path).workers == 3


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """The error says who named it."""
    missing = str(tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match="argument"):
        load_settings({}, {}, config=missing)
    with pytest.raises(SettingsError, match="CHATSDK_CONFIG"):
        load_settings({}, {"CHATSDK_CONFIG": missing})
    with pytest.raises(SettingsError):
        load_settings({}, {}, config=tmp_path)


def test_a_found_file_that_cannot_be_read_is_a_warning() -> None:
    """Somebody else's file in a usual place is no reason to stop."""
    user_file().mkdir(parents=True)
    settings = load_settings({}, {})
    assert settings.files == ()
    assert str(user_file()) in settings.warnings[0]


def test_a_secret_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    """Also where it stands in a profile that is not in use."""
    path = write(tmp_path / "c.toml", '[profile.x]\ntoken = "t"', 0o644)
    assert "chmod 600" in load_settings({}, {}, config=path).warnings[0]
    path.chmod(0o640)
    assert load_settings({}, {}, config=path).warnings == ()
    assert load_settings({}, {}, config=write(tmp_path / "d.toml", "workers = 2", 0o644)).warnings == ()


def test_a_value_of_the_file_is_checked(tmp_path: Path) -> None:
    """The error names file, profile and value."""
    path = write(tmp_path / "c.toml", "[profile.x]\ntimeout = nan")
    with pytest.raises(SettingsError) as caught:
        load_settings({"profile": "x"}, {}, config=path)
    for word in (str(path), "[profile.x]", "timeout", "nan"):
        assert word in str(caught.value)


# ---- the state directory

URL = "https://chat.example:8443/api"


def state(environ: dict[str, str] | None = None, **arguments: Any) -> Path:
    return state_directory(load_settings({"url": URL, **arguments}, environ or {}), environ or {})


def test_which_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument > CHATSDK_STATE_DIR > TOML > the first of $STATE_DIRECTORY > the platform's."""
    file = write(tmp_path / "c.toml", 'state_dir = "/from/file"')
    environ = {
        "CHATSDK_STATE_DIR": "/from/variable",
        "CHATSDK_CONFIG": str(file),
        "STATE_DIRECTORY": "/from/systemd:/other",
    }
    leaf = Path(server_name(URL)) / "default"
    assert state(environ, state_dir="/from/argument") == Path("/from/argument") / leaf
    assert state(environ) == Path("/from/variable") / leaf
    del environ["CHATSDK_STATE_DIR"]
    assert state(environ) == Path("/from/file") / leaf
    del environ["CHATSDK_CONFIG"]
    assert state(environ) == Path("/from/systemd") / leaf
    assert state() == Path(os.environ["HOME"]) / ".local/state/chatsdk" / leaf
    monkeypatch.setenv("XDG_STATE_HOME", "/from/xdg")
    assert state() == Path("/from/xdg/chatsdk") / leaf


def test_one_directory_for_each_server_and_profile() -> None:
    """Different URLs never share one, the same URL always does, and no token is needed to find it."""
    paths = {
        state(url="https://chat.example"),
        state(url="http://chat.example"),
        state(url="https://chat.example:8443"),
        state(url="https://chat.example/api"),
        state(url="https://chat.example/API"),
        state(url="https://chat.example", profile="alerts"),
    }
    assert len(paths) == 6
    assert state(url="HTTPS://Chat.Example:443/") == state(url="https://chat.example")
    assert not any(path.exists() for path in paths)  # it only computes


@pytest.mark.parametrize(
    ("url", "slug"),
    [
        ("https://chat.example:8443/api", "chat.example-8443"),
        ("http://[::1]:5500", "1-5500"),
        ("https://" + "x" * 300, "x" * 40),
        ("https://ü.example", "example"),
    ],
)
def test_a_servers_name_can_be_read(url: str, slug: str) -> None:
    """Host and port in letters that every file system takes, then a hash."""
    name, _, digest = server_name(url).rpartition("-")
    assert name == slug
    assert len(digest) == 8


def test_what_is_needed_for_a_state_directory() -> None:
    """A server, and a path that does not depend on where the process was started."""
    with pytest.raises(SettingsError, match="url is not set"):
        state_directory(load_settings({}, {}), {})
    with pytest.raises(SettingsError, match=r"state_dir \(argument\) must be an absolute path"):
        state(state_dir="state")
    assert state(state_dir="~/s").parent.parent == Path(os.environ["HOME"]) / "s"


@needs_root
def test_no_home_names_the_variable() -> None:
    """A user without a home (some containers have one) is told what to set."""
    code = (
        "import os, platformdirs, platformdirs.unix, pwd, tomllib\n"
        "from chatsdk.config import *; from chatsdk.core.errors import SettingsError\n"
        "os.setuid(54321)\n"  # who has no entry in the user database
        "for given in ({}, {'state_dir': '~/state'}, {'config': '~/config.toml'}):\n"
        "    try: state_directory(load_settings({'url': 'https://x', **given}))\n"
        "    except SettingsError as error: print(error)"
    )
    environ = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert "CHATSDK_STATE_DIR" in lines[0]
    assert all("no home directory" in line for line in lines)


# ---- preparing it


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "base" / "server" / "profile"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_our_directories_are_made_for_us_alone(place: Path, umask: int) -> None:
    """Mode 0700, whatever the umask is; and preparing twice is no harm."""
    place.parent.parent.mkdir()
    os.umask(umask)
    prepare_directory(place)
    os.umask(0o022)
    assert (mode(place), mode(place.parent)) == (0o700, 0o700)
    (place / "outbox.db").touch(0o600)
    prepare_directory(place)


def test_parents_are_made_and_may_be_links(place: Path, tmp_path: Path) -> None:
    """systemd's state directories are links."""
    (tmp_path / "private").mkdir()
    (tmp_path / "base").symlink_to(tmp_path / "private")
    prepare_directory(place)
    assert (tmp_path / "private" / "server" / "profile").is_dir()


def test_existing_directories_that_others_may_read_are_taken(place: Path) -> None:
    """Only writing by others is a danger to what is sent."""
    place.mkdir(parents=True, mode=0o755)
    prepare_directory(place)


def refusal(place: Path) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        prepare_directory(place)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("level", ["server", "profile"])
def test_our_directories_must_be_no_links(place: Path, tmp_path: Path, level: str) -> None:
    """Whoever made the link would choose where messages lie."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = place if level == "profile" else place.parent
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    assert "link" in str(refusal(place))
    assert list(elsewhere.iterdir()) in ([], [elsewhere / "profile"])


@pytest.mark.parametrize("level", ["server", "profile"])
@pytest.mark.parametrize("bits", [0o770, 0o702])
def test_nobody_else_may_write(place: Path, level: str, bits: int) -> None:
    """A directory that a group or everybody can write to is refused, with the command that repairs it."""
    place.mkdir(parents=True)
    path = place if level == "profile" else place.parent
    path.chmod(bits)
    assert f"chmod 700 {path}" in str(refusal(place))


def test_our_files_are_checked_as_well(place: Path, tmp_path: Path) -> None:
    """No links, and nobody else may write to them."""
    prepare_directory(place)
    database = place / "outbox.db"
    database.touch(0o600)
    database.chmod(0o660)
    assert f"chmod 600 {database}" in str(refusal(place))
    database.unlink()
    database.symlink_to(tmp_path / "elsewhere.db")
    assert "link" in str(refusal(place))


@needs_root
@pytest.mark.parametrize("level", ["server", "profile", "file"])
def test_everything_must_be_ours(place: Path, level: str) -> None:
    """What belongs to another user is refused, also by root."""
    prepare_directory(place)
    (place / "outbox.db").touch(0o600)
    path = {"server": place.parent, "profile": place, "file": place / "outbox.db"}[level]
    os.chown(path, 54321, 54321)
    assert "belongs to user 54321" in str(refusal(place))


@pytest.mark.parametrize("blocked", ["base", "server", "profile"])
def test_a_file_in_the_way(place: Path, tmp_path: Path, blocked: str) -> None:
    """Something that is no directory stands there: an error that says what to set."""
    path = {"base": tmp_path / "base", "server": place.parent, "profile": place}[blocked]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert "CHATSDK_STATE_DIR" in refusal(place).hint


def test_a_place_where_nothing_can_be_made() -> None:
    """A read-only or foreign place is a matter of settings, and the hint names the one."""
    assert "CHATSDK_STATE_DIR" in refusal(Path("/proc/nowhere/server/profile")).hint


def test_a_full_disk_is_a_storage_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes; the settings are not wrong."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    place.parent.parent.mkdir()
    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(StorageError, match="No space"):
        prepare_directory(place)


def test_a_file_that_vanishes_while_it_is_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may clean up at the same time."""
    prepare_directory(place)
    monkeypatch.setattr(os, "listdir", lambda _: ["gone"])
    prepare_directory(place)
