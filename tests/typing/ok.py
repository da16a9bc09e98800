"""Code as users write it. A strict checker must find nothing here; `assert_type` pins what they get."""

from collections.abc import Callable
from typing import assert_type

from chatsdk import (
    Channel,
    ChatClient,
    ChatError,
    Message,
    MessageRejected,
    FlushReport,
    NotAcceptedError,
    RateLimited,
    Reason,
    Receipt,
    State,
    Stats,
    Token,
    TokenRequest,
    events,
)


def first_page(channel: str) -> None:
    with ChatClient() as chat:
        receipt = chat.send(channel, "deploy finished")
        assert_type(receipt, Receipt)
        assert_type(receipt.id, int)
        assert_type(receipt.key, str)
        assert_type(receipt.delivered, bool)
        assert_type(receipt.attempts, int)
        assert_type(receipt.state, State)
        assert_type(receipt.reason, Reason | None)
        assert_type(receipt.wait(2.5), Receipt)
        assert_type(receipt.message, Message | None)
        assert_type(receipt.error, ChatError | None)


def every_way_to_send(chat: ChatClient, channel: Channel, seen: Message) -> None:
    chat.send(channel, "text")
    chat.send("general", "text", reply_to=seen.id, key="build-17", ttl=3600, wait=0)
    chat.send("general", "text", wait=False)
    chat.messages.send("general", "text", wait=None)


def in_time(chat: ChatClient, channel: str) -> None:
    with chat.deadline(2.0) as deadline, chat.deadline("quick"):
        assert_type(deadline.remaining(), float)
        assert_type(chat.channels.get(channel), Channel)


def reading(chat: ChatClient, channel: str) -> None:
    for message in chat.messages.list(channel, limit=200):
        assert_type(message, Message)
        assert_type(message.id, str)
        assert_type(message.text, str)
    for room in chat.channels.list():
        assert_type(room, Channel)


def many_users(chat: ChatClient) -> None:
    alice = chat.as_user("alice", token="t")
    assert_type(alice, ChatClient)
    alice.send("general", "hello")


def give_token(request: TokenRequest) -> str | Token:
    assert_type(request.user, str)
    return "t"


def set_up() -> None:
    ChatClient()
    ChatClient("http://127.0.0.1:8000", "t", user="bot")
    ChatClient(url="http://127.0.0.1:8000", token_provider=give_token, send_wait=2.0, background=False)


def outbox(chat: ChatClient) -> None:
    for receipt in chat.outbox.dead():
        assert_type(receipt, Receipt)
    chat.outbox.retry([receipt.id for receipt in chat.outbox.list()])
    assert_type(chat.outbox.get("9f1c1c5e-6f0b-4c55-9a58-0e6f6a3c6d10"), Receipt)
    assert_type(chat.outbox.flush(30), FlushReport)
    assert_type(chat.outbox.stats(), Stats)


def on_sent(event: events.MessageSent) -> None:
    assert_type(event.state, str)


def on_anything(event: events.Event) -> None:
    assert_type(event.at, float)


def listening(chat: ChatClient) -> None:
    stop = chat.on(events.MessageSent, on_sent)
    stop()
    chat.on(events.MessageSent, on_anything)
    chat.on("message:sent", on_anything)

    @chat.on(events.MessageFailed)
    def failed(event: events.MessageFailed) -> None:
        assert_type(event.error, ChatError | None)

    assert_type(failed, Callable[[events.MessageFailed], object])


def errors(chat: ChatClient) -> None:
    try:
        chat.send("general", "text")
    except NotAcceptedError as error:
        assert_type(error.hint, str)
    except MessageRejected as error:
        print(error.receipt)
    except RateLimited as error:
        assert_type(error.retry_after, float | None)


def a_bot(chat: ChatClient, room: Channel) -> None:
    def answer(event: events.MessageReceived) -> None:
        assert_type(event.message, Message)
        assert_type(event.own, bool)
        assert_type(event.seq, int | None)

    chat.on(events.MessageReceived, answer)
    chat.subscribe("general")
    chat.subscribe([room, "general"], since=0, keep=False)
    assert_type(chat.connect(wait=5), bool)
    for event in chat.events(events.TypingStarted, timeout=1.5):
        assert_type(event.by, str)
    with chat.events() as stream:
        assert_type(next(stream), events.RealtimeEvent | events.Gap | events.ChangesMissed)
    assert_type(chat.connection.reconnect_in, float | None)
    assert_type(chat.connection.metrics().reconnects, int)
    chat.run_forever()
