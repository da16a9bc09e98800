"""The subscriptions over real sockets, against the development server and its faults: complete, in order, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from chatsdk.devserver.process import DevServer
from chatsdk.realtime.realtime import Kind
from tests.realtime.bots import Bot, Writer

KINDS: tuple[Kind, ...] = ("centrifugo", "json")


@pytest.fixture(scope="module")
def shared() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


@pytest.fixture
def server(shared: DevServer) -> Iterator[DevServer]:
    """Give the server without the rules of the test before."""
    shared.clear_faults()
    yield shared
    shared.clear_faults()


@pytest.fixture
def writer(server: DevServer) -> Iterator[Writer]:
    """Give somebody who writes."""
    made = Writer(server)
    yield made
    made.connection.close()


@pytest.fixture
def channel(server: DevServer) -> str:
    """Give a channel that no other test uses."""
    return server.channel("alice", "bob")


def complete(bot: Bot, channel: str, count: int) -> None:
    """All messages came, each once; in order but for late ones."""
    bot.wait_for_seqs(channel, count)
    seen = bot.seen[channel]
    assert sorted(seen) == list(range(1, count + 1))
    on_time = [seq for seq in seen if seq not in bot.late]
    assert on_time == sorted(on_time)
    assert bot.gaps() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_over_a_socket(server: DevServer, writer: Writer, channel: str, tmp_path: Path, kind: Kind) -> None:
    """What is sent is heard, in order."""
    with Bot(server, tmp_path, kind=kind) as bot:
        bot.hear(channel)
        writer.write(channel, 50)
        complete(bot, channel, 50)
        assert bot.late == []


@pytest.mark.parametrize("kind", KINDS)
def test_cuts(server: DevServer, writer: Writer, channel: str, tmp_path: Path, kind: Kind) -> None:
    """Every tenth message or so the connection is cut."""
    random = Random(1)
    with Bot(server, tmp_path, kind=kind) as bot:
        bot.hear(channel)
        writer.write(channel, 150, lambda _: server.realtime.cut() if random.random() < 0.1 else None)
        complete(bot, channel, 150)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queue", [False, True])
def test_lost_repeated_and_disordered(
    server: DevServer, writer: Writer, channel: str, tmp_path: Path, kind: Kind, queue: bool
) -> None:
    """On the way to the client, and before the stream has them."""
    with Bot(server, tmp_path, kind=kind) as bot:
        bot.hear(channel)
        server.realtime.drop(queue=queue, every=7, operation="message.new")
        server.realtime.duplicate(queue=queue, every=5, operation="message.new")
        server.realtime.reorder(queue=queue, window=4, every=3, operation="message.new")
        writer.write(channel, 150)
        server.clear_faults()
        writer.write(channel, 1)
        complete(bot, channel, 151)


@pytest.mark.parametrize("tell", [True, False])
def test_an_epoch_that_is_reset(server: DevServer, writer: Writer, channel: str, tmp_path: Path, tell: bool) -> None:
    """The history is gone: the channel is caught up over HTTP, told or not."""
    with Bot(server, tmp_path) as bot:
        bot.hear(channel)
        for _ in range(5):
            writer.write(channel, 10)
            server.realtime.epoch_reset(tell=tell)
        writer.write(channel, 10)
        complete(bot, channel, 60)


def test_cut_and_reset_at_once(server: DevServer, writer: Writer, channel: str, tmp_path: Path) -> None:
    """What is sent while nobody hears it and is in no history either."""
    with Bot(server, tmp_path) as bot:
        bot.hear(channel)
        for _ in range(5):
            server.realtime.cut()
            writer.write(channel, 10)
            server.realtime.epoch_reset()
            writer.write(channel, 2)
        complete(bot, channel, 60)


def test_a_message_that_is_never_published(server: DevServer, writer: Writer, channel: str, tmp_path: Path) -> None:
    """The last one: no later seq and no offset shows it; the quiet check does."""
    with Bot(server, tmp_path, quiet=0.5) as bot:
        bot.hear(channel)
        writer.write(channel, 3)
        bot.wait_for_seqs(channel, 3)
        server.realtime.drop(queue=True, times=1, operation="message.new")
        writer.write(channel, 1)
        complete(bot, channel, 4)


def test_a_restart_misses_nothing_and_repeats_nothing(
    server: DevServer, writer: Writer, channel: str, tmp_path: Path
) -> None:
    """Three bots, one after the other, with one cursor file."""
    seen: list[int] = []
    for life in range(3):
        with Bot(server, tmp_path / "state", cursors=tmp_path / "cursors") as bot:
            bot.hear(channel)
            writer.write(channel, 10)
            bot.wait_for_seqs(channel, 10 if life == 0 else 20)
            seen += bot.seen[channel]
        writer.write(channel, 10)
    assert seen == list(range(1, 51))


def test_what_was_there_before_is_heard_from_the_start(
    server: DevServer, writer: Writer, channel: str, tmp_path: Path
) -> None:
    """`since=0`, 420 messages: three pages."""
    writer.write(channel, 420)
    with Bot(server, tmp_path) as bot:
        bot.hear(channel, since=0)
        complete(bot, channel, 420)


def test_slow_handlers_hold_up_nothing_and_lose_nothing(
    server: DevServer, writer: Writer, channel: str, tmp_path: Path
) -> None:
    """One channel's handler stands still for a while: the other channel goes on, and afterwards nothing is missing."""
    other = server.channel("alice", "bob")
    with Bot(server, tmp_path) as bot:
        bot.workshop.dispatch._bound = 20
        bot.hear(channel, other)
        with bot.changed:  # no handler gets through
            writer.write(channel, 200)
        bot.wait_for_seqs(channel, 200)
        writer.write(other, 5)
        complete(bot, channel, 200)
        complete(bot, other, 5)
        assert bot.workshop.dispatch.refused > 0


def test_without_backfills_it_is_found_out(server: DevServer, writer: Writer, channel: str, tmp_path: Path) -> None:
    """The control: with the history switched off and the stream's too, messages are missing, and a gap says so."""
    with Bot(server, tmp_path) as bot:
        bot.hear(channel)
        writer.write(channel, 3)
        bot.wait_for_seqs(channel, 3)
        server.faults("status", operation="list_messages", status=403)
        refusing = server.realtime.refuse()
        server.realtime.cut()
        writer.write(channel, 3)
        server.realtime.epoch_reset()
        server.clear_faults(refusing)
        bot.wait_for(lambda: bot.gaps())
        assert bot.seen[channel] == [1, 2, 3]
