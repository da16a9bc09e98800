"""Handlers that do not fit their event."""

from chatsdk import ChatClient, events


def on_sent(event: events.MessageSent) -> None: ...


def on_two(event: events.MessageSent, more: int) -> None: ...


def on_nothing() -> None: ...


def listening(chat: ChatClient) -> None:
    chat.on(events.MessageFailed, on_sent)  # E: arg-type
    chat.on(events.MessageSent, on_two)  # E: arg-type
    chat.on(events.MessageSent, on_nothing)  # E: arg-type
    chat.on(5, on_sent)  # E: call-overload

    @chat.on(events.MessageFailed)  # E: arg-type
    def other(event: events.MessageSent) -> None: ...
