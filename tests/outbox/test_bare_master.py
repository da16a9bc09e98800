"""uWSGI's master forks without hooks: an outbox there has no threads, in the workers it has."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from chatsdk.outbox import forks


def test_only_the_master_is_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is one outside of uWSGI; inside, the master is and its workers are not."""
    monkeypatch.delitem(sys.modules, "uwsgi", raising=False)
    assert not forks.is_bare_master()
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(masterpid=os.getpid))
    assert forks.is_bare_master()
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(masterpid=os.getppid))
    assert not forks.is_bare_master()
