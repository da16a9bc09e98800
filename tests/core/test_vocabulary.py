"""The words of labels are those that chatsdk uses, and no more can be made of them than a few."""

from __future__ import annotations

import inspect
import re

import pytest

from chatsdk import plugin
from chatsdk.core import chatsdk_backend, errors, vocabulary
from chatsdk.resilience.circuits import Circuits


def test_operations_are_those_of_the_backend() -> None:
    """Each call that chatsdk's own backend makes is among them, and no other."""
    source = inspect.getsource(chatsdk_backend)
    made = re.findall(r'(?:_call\(\s*|operation=)"([a-z_.]+)"', source)
    assert made
    assert set(made) == vocabulary.OPERATIONS


def test_errors_are_those_that_can_be_raised() -> None:
    """Every class of error, by its own name."""
    assert {"ServerError", "CircuitOpenError", "PluginError", "ChatError"} <= vocabulary.ERRORS
    assert all(getattr(errors, name).__name__ == name for name in vocabulary.ERRORS)


def test_circuits_are_those_of_every_client() -> None:
    """What is there before anybody asks for one."""
    assert set(Circuits()) == vocabulary.CIRCUITS


@pytest.mark.parametrize("told", ["my.call, my.other", "my.call my.other", ["my.call", "my.other"]])
def test_more_operations(told: object) -> None:
    """A plugin's setting adds another backend's, as a list or as words."""
    assert plugin.operations({"operations": told}) - plugin.OPERATIONS == {"my.call", "my.other"}
    assert plugin.operations({}) == plugin.OPERATIONS


def test_too_many_operations_are_refused() -> None:
    """The setting is no door to unbounded labels either."""
    with pytest.raises(ValueError, match="100 at most"):
        plugin.operations({"operations": [f"op{number}" for number in range(vocabulary.MOST_OPERATIONS + 1)]})


def test_it_is_at_the_plugin_authors_door() -> None:
    """What exporters need is promised there."""
    assert {"OPERATIONS", "ERRORS", "CIRCUITS", "operations"} <= set(plugin.__all__)
    assert plugin.ERRORS is vocabulary.ERRORS
    assert plugin.CIRCUITS is vocabulary.CIRCUITS
