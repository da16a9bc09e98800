"""Models as values."""

from __future__ import annotations

import dataclasses
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from chatsdk.core import models
from chatsdk.core.models import Attachment, Message, MessagePage, Model, Reaction, User

WHEN = datetime(2026, 11, 22, 6, 12, 58, 168000, tzinfo=UTC)
ALICE = User(id="alice", name="Alice", custom={"team": "red"}, last_active_at=WHEN)
MESSAGE = Message(
    id="m1",
    channel_id="c1",
    user_id="alice",
    text="hi",
    seq=7,
    key="m1",
    status="sent",
    created_at=WHEN,
    attachments=(Attachment(type="voicenote", url="https://cdn.invalid/v", duration=1.5, waveform=(0.0, 0.5)),),
    reactions=(Reaction(type="👍", count=2, own=True, users=(ALICE,)),),
    mentions=("bob",),
    user=ALICE,
    raw={"id": "m1", "unknown": 1},
)


def test_to_dict_is_json_and_leaves_raw_out() -> None:
    """`to_dict` can be written as JSON, nested models and times included, and does not repeat what was received."""
    facts = json.loads(json.dumps(MESSAGE.to_dict()))
    assert "raw" not in facts
    assert facts["created_at"] == "2026-11-22T06:12:58.168000+00:00"
    assert facts["reactions"][0]["users"][0]["custom"] == {"team": "red"}
    assert facts["attachments"][0]["waveform"] == [0.0, 0.5]


def test_message_survives_to_dict_and_back() -> None:
    """An outbox result, stored as JSON, is the same message again; what a newer version wrote is left out."""
    stored = json.loads(json.dumps({**MESSAGE.to_dict(), "of_a_newer_version": 1}))
    assert Message.from_dict(stored) == MESSAGE
    assert Message.from_dict({"id": "m"}) == Message(id="m")


def test_raw_is_no_part_of_what_a_model_is() -> None:
    """Two answers that differ only in fields we do not know make equal models, and `repr` shows no `raw`."""
    assert dataclasses.replace(MESSAGE, raw={}) == MESSAGE
    assert hash(MESSAGE) == hash(dataclasses.replace(MESSAGE, raw={}))
    assert "unknown" not in repr(MESSAGE)


def _model_classes() -> list[type[Model]]:
    found = [each for each in vars(models).values() if isinstance(each, type) and issubclass(each, Model)]
    return [each for each in found if each is not Model]


@pytest.mark.parametrize("cls", _model_classes(), ids=lambda cls: cls.__name__)
def test_models_are_frozen_slotted_and_keyword_only(cls: Any) -> None:
    """No model can be changed, given a new attribute, or built by position."""
    assert "__dict__" not in dir(cls)
    assert all(field.kw_only for field in dataclasses.fields(cls))
    required = {field.name: "x" for field in dataclasses.fields(cls) if _is_required(field)}
    model = cls(**required)
    assert set(required) <= {"id", "user_id", "message_id", "type", "url", "status"}
    name = dataclasses.fields(model)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(model, name, "y")
    assert pickle.loads(pickle.dumps(model)) == model
    json.dumps(model.to_dict())


def _is_required(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def test_a_deleted_message_says_so() -> None:
    """`deleted` is true by type or by time."""
    assert not MESSAGE.deleted
    assert Message(id="m", type="deleted").deleted
    assert Message(id="m", deleted_at=WHEN).deleted


def test_page_knows_where_to_page_back_from() -> None:
    """That is the earliest message by time, not the one with the lowest seq, and nothing where no time is known."""
    early, late = (
        Message(id="early", seq=2, created_at=WHEN),
        Message(id="late", seq=1, created_at=WHEN.replace(year=2027)),
    )
    assert MessagePage(messages=(late, early)).before == "early"
    assert MessagePage(messages=(Message(id="m"),)).before is None
    assert MessagePage().before is None
