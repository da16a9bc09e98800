"""A bot that repeats what others write: `python examples/echo_bot.py [CHANNEL...]`.

Each message is answered exactly once, whatever happens. The client goes on where the last run stopped, so a message
that came while the bot was down is answered too. If the bot is killed in the middle of an answer, the handler sees that
message once more, and the key makes the second answer the first one.

CHATSDK_URL, CHATSDK_TOKEN and CHATSDK_WS_TOKEN say where, and who the bot is. Ctrl-C or SIGTERM ends it politely.
"""

from __future__ import annotations

import sys

from chatsdk import ChatClient, events


def main(channels: list[str]) -> None:
    with ChatClient() as chat:

        @chat.on(events.MessageReceived)
        def answer(event: events.MessageReceived) -> None:
            if not event.own:
                chat.send(event.channel, f"echo: {event.message.text}", key=f"echo-{event.message_id}", wait=0)

        @chat.on(events.SubscriptionStateChanged)
        def tell(event: events.SubscriptionStateChanged) -> None:
            print(event.channel, event.state, event.error or "", file=sys.stderr, flush=True)

        chat.subscribe(channels)
        chat.run_forever()


if __name__ == "__main__":
    main(sys.argv[1:] or ["general"])
