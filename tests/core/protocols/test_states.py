"""The table of a connection's states."""

from __future__ import annotations

import itertools

import pytest

from chatsdk.core.protocols.states import MOVES, ConnectionState, move

S = ConnectionState


@pytest.mark.parametrize(("old", "new"), [*itertools.product(S, S)])
def test_a_move_is_made_if_and_only_if_the_table_has_it(old: S, new: S) -> None:
    """`move` gives the new state, or raises and names both."""
    if new in MOVES[old]:
        assert move(old, new) is new
    else:
        with pytest.raises(ValueError, match=f"from {old} to {new}"):
            move(old, new)


@pytest.mark.parametrize(
    "path",
    [
        [S.CLOSED, S.CONNECTING, S.CONNECTED, S.DISCONNECTED, S.RECONNECTING, S.CONNECTED, S.CLOSED],
        [S.CLOSED, S.CONNECTING, S.DISCONNECTED, S.RECONNECTING, S.DISCONNECTED, S.RECONNECTING, S.FAILED],
        [S.CONNECTED, S.FAILED, S.CONNECTING, S.CONNECTED],
    ],
)
def test_the_seeds_sequences_are_possible(path: list[S]) -> None:
    """A loss and a return, giving up after the last try, and a new start after that."""
    for old, new in itertools.pairwise(path):
        move(old, new)


def test_every_state_can_be_closed_and_reached() -> None:
    """`close()` is possible from everywhere, no state is a dead end, and no row is one that nobody reaches."""
    assert set(MOVES) == set(S)
    assert all(S.CLOSED in MOVES[state] for state in S if state is not S.CLOSED)
    reached = {S.CLOSED}
    for _ in S:
        reached |= {new for old in reached for new in MOVES[old]}
    assert reached == set(S)


@pytest.mark.parametrize("state", S)
def test_nothing_moves_to_where_it_is(state: S) -> None:
    """An observer is never told the same state twice."""
    assert state not in MOVES[state]


def test_no_first_try_is_called_a_further_one() -> None:
    """RECONNECTING comes only after a loss was shown, CONNECTED only after a try."""
    assert {old for old in S if S.RECONNECTING in MOVES[old]} == {S.DISCONNECTED}
    assert {old for old in S if S.CONNECTED in MOVES[old]} == {S.CONNECTING, S.RECONNECTING}
