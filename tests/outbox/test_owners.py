"""Owners: who holds a lane, and how death is found out."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from chatsdk.outbox.owners import Owners
from tests.outbox.store_kit import Other


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the owners' files go."""
    return tmp_path / "owners"


def test_lazy_and_gone(folder: Path) -> None:
    """No file before the first claim, one afterwards, none after close()."""
    owners = Owners(str(folder))
    assert not folder.exists()
    me = owners.claim_id()
    assert owners.claim_id() == me
    assert os.listdir(folder) == [me]
    assert owners.is_alive(me)
    owners.close()
    owners.close()
    assert os.listdir(folder) == []
    assert owners.me is None


def test_one_id_for_all_threads(folder: Path) -> None:
    """Threads that claim at the same time are one owner."""
    owners, found, start = Owners(str(folder)), set(), threading.Barrier(8)

    def claim() -> None:
        start.wait()
        found.add(owners.claim_id())

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert os.listdir(folder) == list(found)
    owners.close()


def test_another_process(tmp_path: Path) -> None:
    """An owner lives as long as its process, also while that is stopped, and is dead the moment it is killed."""
    other = Other(tmp_path / "state", "say(store._owners.claim_id()); listen()")
    owners = Owners(str(tmp_path / "state" / "owners"))
    them = other.hear()
    assert owners.is_alive(them)
    owners.sweep()
    other.stop()
    assert owners.is_alive(them)
    assert owners.is_alive(them), "asking did not take the lock away"
    other.kill()
    assert not owners.is_alive(them)
    assert os.listdir(tmp_path / "state" / "owners") == [them]
    me = owners.claim_id()
    owners.sweep()
    assert os.listdir(tmp_path / "state" / "owners") == [me]
    assert not owners.is_alive(them)
    owners.close()


def test_asking_does_not_lose_the_own_lock(tmp_path: Path) -> None:
    """Looking after others, and sweeping, never opens the own file: another process still sees us alive."""
    owners = Owners(str(tmp_path / "state" / "owners"))
    other = Other(
        tmp_path / "state",
        "while True:\n    name = listen()\n    if not name: break\n    say(store._owners.is_alive(name))\n",
    )
    me = owners.claim_id()
    owners.is_alive(me)
    owners.sweep()
    other.tell(me)
    assert other.hear() == "True"
    owners.close()
    other.tell(me)
    assert other.hear() == "False"
    other.tell()
    other.end()


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "1-zz", "x"])
def test_strange_names_are_dead(folder: Path, name: str) -> None:
    """A name that no version of ours would give opens no file."""
    assert not Owners(str(folder)).is_alive(name)


def test_in_doubt_an_owner_lives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors left nothing is taken away from anybody."""

    def no_descriptors(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("chatsdk.outbox.owners.os.open", no_descriptors)
    assert Owners(str(folder)).is_alive("1-0123456789abcdef")


def test_a_forked_child_is_somebody_else(folder: Path) -> None:
    """In a forked child the id is the parent's: forgetting it does not drop the parent's lock."""
    owners = Owners(str(folder))
    me = owners.claim_id()
    child = os.fork()
    if child == 0:
        owners.forget()
        ok = owners.me is None and owners.is_alive(me) and owners.claim_id() != me
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(os.listdir(folder)) == 2, "the child left by os._exit"
    assert owners.is_alive(me)
    owners.sweep()
    assert os.listdir(folder) == [me]
    owners.close()
