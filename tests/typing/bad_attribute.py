"""Attributes that are not there, of what the client gives and of the client itself."""

from chatsdk import ChatClient, Message, Receipt


def of_a_receipt(receipt: Receipt) -> None:
    receipt.status  # E: attr-defined
    receipt.wait("long")  # E: arg-type
    receipt.delivered = True  # E: misc


def of_a_message(message: Message) -> None:
    message.body  # E: attr-defined
    message.text = "other"  # E: misc


def of_the_client(chat: ChatClient) -> None:
    chat.message.send("general", "text")  # E: attr-defined
    chat.outbox.dead_letters()  # E: attr-defined
    chat.send("general", "text").wait().txt  # E: attr-defined


def of_what_may_be_missing(receipt: Receipt) -> None:
    receipt.message.text  # E: union-attr
