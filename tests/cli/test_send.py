"""`chatsdk send`: what a script sees of it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

import pytest

from chatsdk.devserver.process import DevServer
from tests.cli.conftest import Shell, end

Texts = Callable[[], list[str]]


def test_a_delivered_message_is_quiet_and_zero(chatsdk: Shell, channel: str, texts: Texts) -> None:
    """Cron mails nobody about a success."""
    ended = chatsdk("send", channel, "deploy finished")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert texts() == ["deploy finished"]


def test_json_is_one_object(chatsdk: Shell, channel: str) -> None:
    """The receipt and the exit code, on standard output, and nothing else there."""
    ended = chatsdk("send", channel, "hello", "--json")
    assert ended.code == 0
    facts = ended.json
    assert (facts["state"], facts["delivered"], facts["exit"], facts["channel"]) == ("SENT", True, 0, channel)
    assert facts["message"]["text"] == "hello"


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_the_text_may_be_piped_in(arguments: tuple[str, ...], chatsdk: Shell, channel: str, texts: Texts) -> None:
    """Left out or "-": the text is standard input, without its last line end."""
    assert chatsdk("send", channel, *arguments, stdin="two\nlines – ü\n").code == 0
    assert texts() == ["two\nlines – ü"]


def test_a_text_may_begin_with_a_dash(chatsdk: Shell, channel: str, texts: Texts) -> None:
    """After "--" nothing is an option."""
    assert chatsdk("send", channel, "--", "--wait is an option").code == 0
    assert texts() == ["--wait is an option"]


def test_the_development_channel_has_a_name(chatsdk: Shell, server: DevServer) -> None:
    """What `chatsdk serve` tells people to type works."""
    facts = chatsdk("send", "general", "hello", "--json").json
    assert facts["channel"] == server.channel_id


def test_an_alias_of_the_settings_is_a_channel(chatsdk: Shell, channel: str, texts: Texts, tmp_path: object) -> None:
    """`[profile.NAME.channels]` names channels."""
    config = f"{tmp_path}/config.toml"
    with open(config, "w") as file:
        file.write(f'[profile.work.channels]\nops = "{channel}"\n')
    assert chatsdk("send", "ops", "hello", "--config", config, "--profile", "work").code == 0
    assert texts() == ["hello"]


def test_a_key_sends_once(chatsdk: Shell, channel: str, texts: Texts) -> None:
    """A cron job that runs twice says it once."""
    first = chatsdk("send", channel, "nightly report", "--key", "report-2026-11-22", "--json")
    again = chatsdk("send", channel, "nightly report", "--key", "report-2026-11-22", "--json")
    assert (first.code, again.code) == (0, 0)
    assert first.json["key"] == again.json["key"]
    assert texts() == ["nightly report"]
    other = chatsdk("send", channel, "another text", "--key", "report-2026-11-22")
    assert other.code == 65


def test_no_wait_only_stores(chatsdk: Shell, channel: str, texts: Texts) -> None:
    """--no-wait: accepted, exit 0, nothing sent, and said so."""
    ended = chatsdk("send", channel, "later", "--no-wait", "--json")
    assert (ended.code, ended.json["state"], ended.json["attempts"]) == (0, "QUEUED", 0)
    assert "chatsdk outbox flush" in ended.err
    assert texts() == []
    assert chatsdk("outbox", "flush").code == 0
    assert texts() == ["later"]


def test_a_server_that_is_down_is_75_and_the_message_arrives_later(
    chatsdk: Shell, channel: str, texts: Texts, server: DevServer
) -> None:
    """75: accepted. The server comes back, `outbox flush` delivers, once."""
    server.faults("status", operation="send", status=503, channel=channel)
    ended = chatsdk("send", channel, "hello", "--wait", "0.3s")
    assert ended.code == 75
    assert "do not send it again" in ended.err
    assert "chatsdk outbox run" in ended.err
    server.clear_faults()
    flushed = chatsdk("outbox", "flush", "--budget", "20s", "--json")
    assert (flushed.code, flushed.json["sent"], flushed.json["queued"]) == (0, 1, 0)
    assert texts() == ["hello"]


def test_an_unreachable_server_is_75(chatsdk: Shell, channel: str, nowhere: str) -> None:
    """Nobody listens: the message is safe, and the reason is said."""
    ended = chatsdk("send", channel, "hello", "--wait", "0.3", "--json", CHATSDK_URL=nowhere)
    assert (ended.code, ended.json["state"], ended.json["reason"]) == (75, "QUEUED", "offline")


def test_queued_ok_makes_it_zero(chatsdk: Shell, channel: str, nowhere: str) -> None:
    """Who asked for that is content with a message that is safe."""
    ended = chatsdk("send", channel, "hello", "--wait", "0.3", "--queued-ok", CHATSDK_URL=nowhere)
    assert ended.code == 0
    assert "safe in the outbox" in ended.err


def test_the_command_that_sends_it_can_be_copied(chatsdk: Shell, channel: str, texts: Texts) -> None:
    """It names the profile in which the message waits."""
    ended = chatsdk("send", channel, "hello", "--no-wait", "--profile", "work")
    found = re.search("`chatsdk (outbox flush .*?)`", ended.err)
    assert found is not None
    assert chatsdk(*found[1].split()).code == 0
    assert texts() == ["hello"]


def test_a_rejected_message_is_65(chatsdk: Shell, server: DevServer) -> None:
    """A channel that alice is not in refuses; the dead letter stands, and the hint says where."""
    foreign = server.channel("carol")
    ended = chatsdk("send", foreign, "let me in", "--json")
    assert (ended.code, ended.json["state"], ended.json["reason"], ended.json["exit"]) == (65, "DEAD", "rejected", 65)
    assert "chatsdk outbox dead" in ended.err
    assert "let me in" in chatsdk("outbox", "dead").out


@pytest.mark.parametrize("text", ["", "x" * 10_001])
def test_a_text_that_no_server_takes_is_65(text: str, chatsdk: Shell, channel: str) -> None:
    """Refused before it was accepted: nothing waits."""
    assert chatsdk.here("send", channel, text).code == 65
    assert chatsdk.here("outbox", "list").out == ""


def test_a_bad_token_is_77_and_loses_nothing(chatsdk: Shell, channel: str, texts: Texts, server: DevServer) -> None:
    """A refused token: 77, and the message waits for a better one."""
    ended = chatsdk("send", channel, "hello", "--wait", "1", CHATSDK_TOKEN=_spoilt(server), CHATSDK_USER="alice")
    assert ended.code == 77
    assert "safe in the outbox" in ended.err
    assert chatsdk("outbox", "flush", "--budget", "20s", CHATSDK_USER="alice").code == 0
    assert texts() == ["hello"]


def _spoilt(server: DevServer) -> str:
    """A token with a wrong signature."""
    head, _, signature = server.tokens["alice"].rpartition(".")
    return f"{head}.{signature[::-1]}"


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("send",), None),
        (("send", "general"), ""),
        (("send", "general"), b"\xff\xfe\xff"),
        (("send", "general", "x", "--wait", "soon"), None),
        (("send", "general", "x", "--wait", "1", "--no-wait"), None),
        (("send", "general", "x", "--ttl", "never"), None),
        (("bogus",), None),
        (("--bogus",), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_nonsense_is_2(arguments: tuple[str, ...], stdin: str | bytes | None, chatsdk: Shell) -> None:
    """A command line that makes no sense: usage on standard error, nothing accepted."""
    ended = chatsdk.here(*arguments, stdin=stdin or b"")
    assert (ended.code, ended.out) == (2, "")
    assert "Error" in ended.err


@pytest.mark.parametrize("ttl", ["90", "90s", "5m", "24h"])
def test_ttl_is_a_time(ttl: str, chatsdk: Shell, channel: str) -> None:
    """However a time is written, it is how long the message may wait."""
    facts = chatsdk.here("send", channel, "x", "--no-wait", "--ttl", ttl, "--json").json
    seconds = {"90": 90, "90s": 90, "5m": 300, "24h": 86400}[ttl]
    assert abs(facts["expires_at"] - facts["created_at"] - seconds) < 1


def test_a_setting_that_makes_no_sense_is_78(chatsdk: Shell) -> None:
    """A bad environment is configuration, not usage, and the sentence names the variable."""
    ended = chatsdk("send", "general", "x", CHATSDK_TIMEOUT="abc")
    assert ended.code == 78
    assert "CHATSDK_TIMEOUT" in ended.err


def test_without_a_url_there_is_a_hint(chatsdk: Shell) -> None:
    """78, and the ways to give one."""
    ended = chatsdk("send", "general", "x", CHATSDK_URL=None)
    assert ended.code == 78
    assert "CHATSDK_URL" in ended.err
    assert "--url" in ended.err


def test_a_state_directory_that_cannot_be_is_78(chatsdk: Shell, channel: str, tmp_path: object) -> None:
    """A file in its place: nothing was accepted, and the hint names the variable."""
    with open(f"{tmp_path}/file", "w"):
        pass
    ended = chatsdk("send", channel, "x", "--state-dir", f"{tmp_path}/file")
    assert ended.code == 78
    assert "CHATSDK_STATE_DIR" in ended.err


def test_a_token_from_a_file(chatsdk: Shell, channel: str, server: DevServer, texts: Texts, tmp_path: object) -> None:
    """--token-file keeps the token out of the process list."""
    path = f"{tmp_path}/token"
    with open(path, "w") as file:
        file.write(server.tokens["alice"] + "\n")
    assert chatsdk("send", channel, "hello", "--token-file", path, CHATSDK_TOKEN=None).code == 0
    assert texts() == ["hello"]
    assert chatsdk.here("send", channel, "hello", "--token", "abc").code == 2  # there is no such flag


def test_an_interrupted_wait_says_that_it_was_accepted(chatsdk: Shell, channel: str, nowhere: str) -> None:
    """Ctrl-C while waiting is no reason to send it again: 75, and the sentence says so."""
    chatsdk.environ["CHATSDK_URL"] = nowhere
    process = chatsdk.start("send", channel, "hello", "--wait", "60s", "--json")
    ends = time.monotonic() + 20
    while "hello" not in chatsdk.here("outbox", "list").out:
        assert time.monotonic() < ends
        time.sleep(0.1)
    ended = end(process, signal.SIGINT)
    assert (ended.code, ended.json["state"], ended.json["exit"]) == (75, "QUEUED", 75)
    assert "do not send it again" in ended.err
