"""Events: their names, how they are found by them, and what they look like as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from chatsdk.core import events, realtime_events
from chatsdk.core.errors import NotFound
from chatsdk.core.events import Event
from chatsdk.core.models import Message

CLASSES = list(
    dict.fromkeys(
        each
        for module in (events, realtime_events)
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, Event) and not name.startswith("_")
    )
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_is_found_by_its_name(cls: type[Event]) -> None:
    """The seed name leads to the very class that is imported (a slotted dataclass is made twice)."""
    assert events.by_name(cls.NAME) is cls


def test_names_are_found_at_once_in_a_new_process() -> None:
    """The first copy of a slotted class lives until the garbage collector runs; it must not be found before that."""
    code = (
        "import gc; gc.disable()\n"
        "from chatsdk.core import events\n"
        "assert events.by_name('message:sent') is events.MessageSent\n"
        "assert events.by_name('event') is events.Event"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_are_unique() -> None:
    """Two events of one name could not be told apart."""
    assert len({cls.NAME for cls in CLASSES}) == len(CLASSES)


def test_unknown_names() -> None:
    """A misspelt name is a KeyError."""
    with pytest.raises(KeyError):
        events.by_name("message:snet")


def test_a_plugins_event_is_found_too() -> None:
    """A class of somebody else's with a name of its own is found by it; one without leaves its parent's alone."""

    class Polled(Event):
        NAME = "poll:closed"

    class Quiet(events.MessageSent):
        pass

    assert events.by_name("poll:closed") is Polled
    assert events.by_name("message:sent") is events.MessageSent


def test_to_dict_is_json() -> None:
    """Fields by name, errors and models as what they say."""
    failed = events.MessageFailed(
        at=1.0, id=7, key="k", user="u", channel="c", state="QUEUED", attempts=2, reason="offline", error=NotFound("m")
    )
    facts = json.loads(json.dumps(failed.to_dict()))
    assert (facts["event"], facts["id"], facts["state"]) == ("message:failed", 7, "QUEUED")
    assert facts["error"]["type"] == "NotFound"
    sent = events.MessageSent(id=7, key="k", user="u", channel="c", state="SENT", message=Message(id="m"))
    assert json.loads(json.dumps(sent.to_dict()))["message"]["id"] == "m"
