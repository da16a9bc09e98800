"""Labels hold words of fixed lists, whatever a server, a user or another plugin comes up with."""

from __future__ import annotations

import inspect
import re

import pytest
from chatsdk_prometheus import labels

from chatsdk.core import chatsdk_backend


def test_operations_are_those_of_the_backend() -> None:
    """Each call that chatsdk's own backend makes has a label of its own, and no other has one."""
    source = inspect.getsource(chatsdk_backend)
    made = re.findall(r'(?:_call\(\s*|operation=)"([a-z_.]+)"', source)
    assert made
    assert set(made) == labels.OPERATIONS


def test_errors_are_those_of_chatsdk() -> None:
    """An error is known by its class; one that chatsdk does not know is `other`."""
    assert {"ServerError", "CircuitOpenError", "PluginError", "ChatError"} <= labels.ERRORS
    assert labels.known("ServerError", labels.ERRORS) == "ServerError"
    assert labels.known('x"}\nhostile 1', labels.ERRORS) == "other"


@pytest.mark.parametrize("told", ["my.call, my.other", "my.call my.other", ["my.call", "my.other"]])
def test_more_operations(told: object) -> None:
    """Another backend's operations are added by the setting, as a list or as words."""
    assert labels.operations({"operations": told}) - labels.OPERATIONS == {"my.call", "my.other"}
    assert labels.operations({}) == labels.OPERATIONS


def test_too_many_operations_are_refused() -> None:
    """The setting is no door to unbounded labels either."""
    many = [f"op{number}" for number in range(labels.MOST_OPERATIONS + 1)]
    with pytest.raises(ValueError, match="100 at most"):
        labels.operations({"operations": many})
