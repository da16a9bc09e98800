"""The group itself: options, help, errors, plugins, start-up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chatsdk import __version__
from chatsdk.cli.options import global_options
from chatsdk.core.settings import TABLE
from tests.cli.conftest import ROOT, Shell


def test_version(chatsdk: Shell) -> None:
    """One line, also without any settings."""
    ended = chatsdk("--version", CHATSDK_URL=None)
    assert (ended.code, ended.out) == (0, f"chatsdk {__version__}\n")


def test_help_lists_every_command(chatsdk: Shell) -> None:
    """With no settings at all, quietly."""
    ended = chatsdk("--help", CHATSDK_URL=None, CHATSDK_TOKEN=None)
    assert (ended.code, ended.err) == (0, "")
    for name in ("demo", "serve", "send", "channels", "outbox", "config", "plugins"):
        assert f"\n  {name}" in ended.out


def test_every_flag_of_the_settings_is_an_option() -> None:
    """The table decides; a token has no flag, because everybody can see a process's arguments."""
    options = {name for option in global_options(hidden=False) for name in option.opts}
    assert {row.flag for row in TABLE if row.flag} <= options
    assert "--token" not in options


def test_options_may_stand_on_either_side(chatsdk: Shell, channel: str) -> None:
    """`chatsdk --user bob config` and `chatsdk config --user bob` are the same."""
    for arguments in (("--user", "bob", "config", "--json"), ("config", "--user", "bob", "--json")):
        assert chatsdk.here(*arguments).json["settings"]["user"] == {"value": "bob", "source": "argument"}
    assert chatsdk.here("outbox", "list", "--user", "bob").code == 0


def test_config_says_where_from_and_shows_no_secret(chatsdk: Shell) -> None:
    """Each value with its source; secrets masked (the shell checks for the token itself)."""
    ended = chatsdk("config", CHATSDK_TIMEOUT="7", CHATSDK_REFRESH_TOKEN="canary-refresh-token")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in ended.out.splitlines()}
    assert rows["timeout"] == ["7 s", "CHATSDK_TIMEOUT"]
    assert rows["token"] == ["***", "CHATSDK_TOKEN"]
    assert rows["refresh_token"] == ["***", "CHATSDK_REFRESH_TOKEN"]
    assert rows["send_wait"] == ["10 s", "default"]
    assert set(rows) >= {row.name for row in TABLE}


def test_config_as_json(chatsdk: Shell) -> None:
    """One object, with the outbox's place and the warnings."""
    facts = chatsdk.here("config", "--json").json
    assert facts["settings"]["token"] == {"value": "***", "source": "CHATSDK_TOKEN"}
    assert facts["settings"]["timeout"]["value"] == 10.0
    assert facts["outbox"].startswith(chatsdk.environ["CHATSDK_STATE_DIR"])


def test_a_misspelt_variable_is_a_warning(chatsdk: Shell) -> None:
    """With the nearest name."""
    ended = chatsdk("config", CHATSDK_TIMEOT="7")
    assert ended.code == 0
    assert "CHATSDK_TIMEOT" in ended.err
    assert "CHATSDK_TIMEOUT?" in ended.err


def test_channels(chatsdk: Shell) -> None:
    """Create one and find it in the list."""
    made = chatsdk("channels", "create", "from the shell", "--member", "bob")
    assert made.code == 0
    assert f"{made.out.strip()}\tgroup\tfrom the shell" in chatsdk("channels", "list", "--limit", "100").out
    listed = chatsdk("channels", "list", "--json", "--limit", "100")
    assert made.out.strip() in {each["id"] for each in listed.json["channels"]}


def test_a_read_from_an_unreachable_server_is_69(chatsdk: Shell, nowhere: str) -> None:
    """Reads are not queued; the code says that the server is the trouble."""
    ended = chatsdk("channels", "list", "--timeout", "2", CHATSDK_URL=nowhere)
    assert (ended.code, ended.out) == (69, "")


def test_a_read_with_a_bad_token_is_77(chatsdk: Shell) -> None:
    """And no part of the token is in the output (the shell checks that)."""
    assert chatsdk("channels", "list", CHATSDK_TOKEN="canary-token-that-is-wrong").code == 77


def test_plugins_are_listed(chatsdk: Shell) -> None:
    """The built-in ones are always there, and all of them work."""
    found = chatsdk("plugins", "--json", CHATSDK_URL=None, CHATSDK_TOKEN=None).json["plugins"]
    assert {"telemetry", "dedup", "retry", "breaker", "auth"} <= {each["name"] for each in found}
    assert [each["error"] for each in found if each["built_in"]] == [""] * sum(each["built_in"] for each in found)


def test_the_chain_is_shown_outermost_first(chatsdk: Shell) -> None:
    """In the order of the stages, with the transport inside."""
    layers = [line.split("\t")[1] for line in chatsdk("plugins", "--chain").out.splitlines()]
    assert layers == ["telemetry", "dedup", "retry", "breaker", "auth", "transport"]


PLUGIN = '''
import click
from chatsdk.plugin import hookimpl

@hookimpl
def chatsdk_commands(cli):
    @cli.command("hello")
    @click.argument("name")
    def hello(name):
        """Say hello."""
        print(f"hello {name}")
'''
BROKEN = "raise RuntimeError('a bad release')\n"


@pytest.fixture
def plugins(tmp_path: Path, chatsdk: Shell) -> Path:
    """A directory with two installed plugins: one adds a command, one is broken."""
    place = tmp_path / "installed"
    for name, code in (("greeter", PLUGIN), ("broken", BROKEN)):
        facts = place / f"{name}-1.2.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (facts / "entry_points.txt").write_text(f"[chatsdk]\n{name} = plugin_{name}\n")
        (place / f"plugin_{name}.py").write_text(code)
    chatsdk.environ["PYTHONPATH"] = f"{ROOT}:{place}"
    return place


def test_a_plugin_may_add_a_command(plugins: Path, chatsdk: Shell) -> None:
    """It runs and is in --help; a broken plugin beside it is a warning and no more."""
    ended = chatsdk("hello", "world")
    assert (ended.code, ended.out) == (0, "hello world\n")
    assert "a bad release" in ended.err
    assert "Say hello." in chatsdk("--help").out


def test_built_in_commands_do_not_load_plugins(plugins: Path, chatsdk: Shell) -> None:
    """A broken plugin does not disturb a command that needs none."""
    ended = chatsdk("config")
    assert "a bad release" not in ended.err


def test_a_broken_plugin_is_shown(plugins: Path, chatsdk: Shell) -> None:
    """Name, version, distribution, and what is wrong."""
    found = {each["name"]: each for each in chatsdk("plugins", "--json").json["plugins"]}
    assert found["greeter"]["version"] == "1.2"
    assert found["greeter"]["hooks"] == ["chatsdk_commands"]
    assert "a bad release" in found["broken"]["error"]


def test_debug_shows_the_traceback(chatsdk: Shell) -> None:
    """Asked for, and only then."""
    ended = subprocess.run(
        [sys.executable, "-m", "chatsdk", "--debug", "config"],
        capture_output=True,
        text=True,
        env=chatsdk.environment({"CHATSDK_TIMEOUT": "abc"}),
        check=False,
    )
    assert ended.returncode == 78
    assert "Traceback" in ended.stderr


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [("click", ("--version",), "[cli]"), ("uvicorn", ("serve",), "[server]"), ("starlette", ("demo",), "[server]")],
)
def test_a_missing_extra_is_one_sentence(missing: str, arguments: tuple[str, ...], extra: str, tmp_path: Path) -> None:
    """78, and the name of the extra; no traceback."""
    script = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from chatsdk.cli.main import main\n"
        f"sys.exit(main({list(arguments)!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 78
    assert extra in ended.stderr
    assert "Traceback" not in ended.stderr


def test_send_imports_only_what_it_needs(chatsdk: Shell, channel: str) -> None:
    """Start-up is what people wait for: no rich, no server, no realtime, no other command."""
    script = (
        "import json, sys\n"
        "from chatsdk.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "send", channel, "hello"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=chatsdk.environment({}),
        check=True,
    )
    code, modules = json.loads(ended.stdout)
    assert code == 0
    for name in (
        "rich",
        "starlette",
        "uvicorn",
        "websocket",
        "chatsdk.cli.commands.outbox",
        "chatsdk.cli.demo",
    ):
        assert name not in modules, name
