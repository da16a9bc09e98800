"""A Celery application whose tasks speak to the chat. The client starts where the module is loaded: in the parent of
the pool. `worker_process_shutdown` is where a child of the pool closes it: those end without `atexit`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from celery import Celery  # type: ignore[import-untyped]
from celery.signals import worker_process_shutdown  # type: ignore[import-untyped]

from chatsdk import ChatClient

PLACE = Path(os.environ["CHAT_PLACE"])
CHANNEL = os.environ["CHAT_CHANNEL"]
ROWS = 5

for folder in ("queue", "done", "control"):
    (PLACE / folder).mkdir(exist_ok=True)

app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(PLACE / "queue"),
    "data_folder_out": str(PLACE / "queue"),
    "processed_folder": str(PLACE / "done"),
    "control_folder": str(PLACE / "control"),
}
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = False

chat = ChatClient()
if os.environ.get("CHAT_START"):
    assert chat.send(CHANNEL, "loaded first").delivered
    for n in range(ROWS):
        chat.send(CHANNEL, f"loaded {n}", wait=0)
    chat.users.me()


@app.task  # type: ignore[untyped-decorator]
def post(channel: str, text: str, wait: float) -> None:
    """Send, and leave a note of how long that took."""
    began = time.monotonic()
    receipt = chat.send(channel, text, wait=wait)
    took = time.monotonic() - began
    if wait:
        chat.users.me()
        time.sleep(0.2)  # so that the other child gets some
    note = {"pid": os.getpid(), "took": took, "state": str(receipt.state)}
    draft = PLACE / f"{text}.draft"
    draft.write_text(json.dumps(note))
    draft.rename(PLACE / f"{text}.json")


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def close(**_: object) -> None:
    """Send what is left."""
    chat.close()
