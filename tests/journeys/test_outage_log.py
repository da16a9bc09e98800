"""An outage in the log and among the errors of a real client: sends fail while reads answer."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from chatsdk import ChatClient
from chatsdk.core.errors import ChatError
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually


def test_sends_fail_while_reads_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins and one when it ends, with the calls of eight threads and several lanes in between; the
    error is known by its kind, and everything is delivered."""
    caplog.set_level(logging.INFO, logger="chatsdk")
    with DevServer() as server:
        channels = [server.channel("alice") for _ in range(4)]
        settings = {"state_dir": str(tmp_path), "discover": False, "circuit_failures": 1000}
        with ChatClient(server.url, server.tokens["alice"], **settings) as chat:  # type: ignore[arg-type]
            server.faults("status", operation="send", status=503)
            receipts = [chat.send(channel, f"m{number}", wait=0) for number in range(5) for channel in channels]
            stop, unexpected = threading.Event(), []

            def read() -> None:
                while not stop.is_set():
                    try:
                        chat.channels.list(fresh=True)
                    except ChatError as error:
                        unexpected.append(error)

            readers = [threading.Thread(target=read) for _ in range(8)]
            for reader in readers:
                reader.start()
            eventually(lambda: sum(failure.count for failure in chat.errors()) >= 12)
            server.clear_faults()
            assert all(receipt.wait(30).delivered for receipt in receipts)
            stop.set()
            for reader in readers:
                reader.join(30)
            eventually(lambda: len(said(caplog)) >= 2)
            (failure,) = chat.errors()
    assert unexpected == []
    first, last = said(caplog)
    assert first.startswith("messages.send failed: ServerError (")
    assert f"{failure.count} calls failed (1 operation: messages.send)" in last
    assert (failure.operation, failure.error, failure.status) == ("messages.send", "ServerError", 503)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "chatsdk"]
