"""Arguments of a wrong type, too many, too few, or misspelt."""

from chatsdk import ChatClient


def send(chat: ChatClient) -> None:
    chat.send("general", 5)  # E: arg-type
    chat.send(17, "text")  # E: arg-type
    chat.send("general")  # E: call-arg
    chat.send("general", "text", "more")  # E: call-arg  # E: arg-type
    chat.send("general", "text", time_to_live=5)  # E: call-arg
    chat.send("general", "text", ttl="1h")  # E: arg-type
    chat.send("general", "text", key=5)  # E: arg-type
    chat.send("general", "text", wait="yes")  # E: arg-type


def others(chat: ChatClient) -> None:
    chat.messages.list("general", limit="all")  # E: arg-type
    chat.as_user(5)  # E: arg-type
    chat.deadline("slow")  # E: arg-type
    chat.deadline(None)  # E: arg-type
    ChatClient(url=5)  # E: arg-type
    ChatClient(token_provider="t")  # E: arg-type
