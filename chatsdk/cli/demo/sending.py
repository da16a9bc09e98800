"""The sending process of the demo: `python -m chatsdk.cli.demo.sending`.

An ordinary program with an ordinary client: threads that send, each in a channel of its own, and a record of what was
accepted. It is told over standard input how many messages to send ("send PACE COUNT...": so many seconds apart, so many
in each channel) and when to leave ("quit"); where that ends without a word, whoever started it is gone, and so is it.
URL, token and state directory come from the environment. It never waits for delivery.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from ...client import ChatClient
from ...core.errors import StorageError
from .notes import Name, Notebook


class Sending:
    """The threads. `order` gives them work, `stop` ends them."""

    def __init__(self, chat: ChatClient, channels: list[str], run: int, notebook: Notebook) -> None:
        self._chat = chat
        self._run = run
        self._notebook = notebook
        self._condition = threading.Condition()
        self._allowed = [0] * len(channels)
        self._pace = 0.0
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_all, args=(number, channel), name=f"demo-channel-{number}")
            for number, channel in enumerate(channels)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def order(self, pace: float, counts: list[int]) -> None:
        """So many more messages, by channel, so many seconds apart."""
        with self._condition:
            self._allowed = [allowed + more for allowed, more in zip(self._allowed, counts, strict=True)]
            self._pace = pace
            self._condition.notify_all()

    def stop(self) -> None:
        """End the threads; what they were told to send and did not yet is not sent."""
        self._stopped.set()
        with self._condition:
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _send_all(self, number: int, channel: str) -> None:
        n = 0
        while self._may_send(number, n):
            self._send(channel, Name(self._run, number, n))
            n += 1
            self._stopped.wait(self._pace)

    def _may_send(self, number: int, n: int) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._stopped.is_set() or n < self._allowed[number])
            return not self._stopped.is_set()

    def _send(self, channel: str, name: Name) -> None:
        self._notebook.begun(name)
        while not self._stopped.is_set():
            try:
                receipt = self._chat.send(channel, name.text(), wait=0)
            except StorageError:
                continue  # not accepted: nothing happened, so the same message may be sent again
            self._notebook.accepted(name, receipt.key)
            return


def main() -> int:
    """Send as told until told to leave."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--run", type=int, required=True)
    parser.add_argument("--channel", action="append", required=True)
    parser.add_argument("--fresh-keys", action="store_true")
    given = parser.parse_args()
    plugins = []
    if given.fresh_keys:
        from .fresh_keys import FreshKeys

        plugins.append(FreshKeys())
    notebook = Notebook(given.notes)
    with ChatClient(discover=False, trust_env=False, exit_timeout=0.0, plugins=plugins) as chat:
        sending = Sending(chat, given.channel, given.run, notebook)
        chat.outbox.flush(0)  # opens the outbox, and has the threads look for what an earlier run left
        sending.start()
        for line in sys.stdin:
            verb, *words = line.split()
            if verb != "send":
                break
            sending.order(float(words[0]), [int(word) for word in words[1:]])
        sending.stop()
    notebook.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
