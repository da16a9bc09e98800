"""One token manager per user, a bounded number of them, and nobody's message loses the token that was given for it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatsdk.auth import pairs as pair_files
from chatsdk.auth.pairs import PairStore
from chatsdk.auth.renewal_threads import LATE_LIMIT, LIMIT, RenewalThreads
from chatsdk.core.errors import InvalidArgument, SettingsError, TokenExpiredError, TokenUnavailableError
from chatsdk.core.events import Event
from chatsdk.core.exchange import Request
from chatsdk.core.settings import Settings
from chatsdk.core.tokens import Secret, Token, TokenRequest
from chatsdk.resilience.system_clock import SystemClock
from chatsdk.testing.clock import FakeClock
from chatsdk.users import NOBODY, TRIES, Users, check_user
from tests.auth.kit import jwt_like, settle


class World:
    """Users, and what they do to their surroundings."""

    def __init__(self, kept: int = 10, provider: Callable[[TokenRequest], Any] | None = None, **settings: Any) -> None:
        self.events: list[Event] = []
        self.woken: list[str] = []
        self.waiting: set[str] = set()
        self.looked: list[str] = []
        self.clock = FakeClock()
        given = {"url": "http://127.0.0.1:9", "users_kept": kept, "background": False, **settings}
        clock = SystemClock() if given["background"] else self.clock
        self.users = Users(
            Settings(**given),
            provider=provider,
            signed=None,
            clock=clock,
            emit=self.events.append,
            refresh=self._refresh,
            refresh_refused=lambda _: True,
            pairs=lambda: None,
            on_token=self.woken.append,
            waiting=self._waiting,
        )

    def _waiting(self, user: str) -> bool:
        self.looked.append(user)
        return user in self.waiting

    def _refresh(self, user: str, secret: str, deadline: float) -> Token:
        raise TokenUnavailableError("nobody refreshes here")

    def sign(self, user: str) -> str:
        """What stands in the header of a request of this user's."""
        return self.users.authorize(request(user), False)["Authorization"]

    def known(self) -> set[str]:
        """Whose managers exist."""
        gc.collect()
        return {manager.user for manager in self.users._managers()}


def request(user: str) -> Request:
    """Some request."""
    return Request(operation="messages.list", method="GET", path="/api/channels", user=user, deadline=None)


def per_user(wanted: TokenRequest) -> str:
    """A provider."""
    return f"token-of-{wanted.user}"


# ---- who is kept


def test_managers_of_idle_users_are_bounded() -> None:
    """A thousand users through a provider: everybody speaks with the own token, and ten managers are kept."""
    asked: list[str] = []

    def provide(wanted: TokenRequest) -> str:
        asked.append(wanted.user)
        return per_user(wanted)

    world = World(kept=10, provider=provide)
    for number in range(1000):
        assert world.sign(f"u{number}") == f"Bearer token-of-u{number}"
        assert len(world.users._kept) <= 10
    assert world.known() == {f"u{number}" for number in range(990, 1000)}
    assert world.looked == []  # nothing was given, so nothing had to be looked for
    world.sign("u999")
    world.sign("u0")
    assert (len(asked), asked[-1]) == (1001, "u0")


def test_who_was_used_last_is_kept() -> None:
    """It is not the order of making that counts."""
    world = World(kept=3, provider=per_user)
    for user in ("a", "b", "c", "a", "d"):
        world.sign(user)
    assert world.known() == {"a", "c", "d"}


def test_given_token_is_kept_while_a_message_waits() -> None:
    """Nothing but that manager could send it; afterwards it may go."""
    world = World(kept=2)
    world.waiting = {"u0", "u1", "u2"}
    for number in range(8):
        world.users.replace(f"u{number}", f"t{number}")
    assert world.known() == {"u0", "u1", "u2"} | {"u7"}
    assert [world.sign(f"u{number}") for number in range(3)] == ["Bearer t0", "Bearer t1", "Bearer t2"]
    world.waiting.clear()
    world.users.replace("next", "t")
    left = world.known()
    assert len(left) == 2
    assert "next" in left
    assert [world.users.lost(f"u{number}") for number in range(8)] == [f"u{number}" not in left for number in range(8)]


def test_given_token_is_kept_while_a_view_holds_it() -> None:
    """What somebody holds is found again, with all that it knows, and comes back among those kept."""
    world = World(kept=2)
    held = world.users.replace("held", "t")
    for number in range(10):
        world.users.replace(f"u{number}", f"t{number}")
    assert "held" not in world.users._kept
    assert world.users.find("held") is held
    allowed = world.users.allowed()
    assert allowed is not None
    assert "held" in allowed
    assert world.sign("held") == "Bearer t"
    world.users.keep("held")
    world.waiting = {"held"}
    del held
    for number in range(10):
        world.users.replace(f"u{number}", f"t{number}")
    assert world.sign("held") == "Bearer t"


def test_message_that_comes_while_room_is_made() -> None:
    """It was put after the look into the outbox and before the manager went: the manager stays."""
    world = World(kept=1)
    world.users.replace("first", "t")
    look = world._waiting

    def late(user: str) -> bool:
        found = look(user)
        if user == "first" and len(world.looked) == 1:
            world.users.keep(user)
        return found

    world.users._waiting = late
    world.users.replace("second", "t")
    assert world.looked[0] == "first"
    assert world.sign("first") == "Bearer t"


def test_lost_session_is_kept_while_a_message_waits() -> None:
    """Only its manager asks the provider again, and so wakes what waits."""
    tokens: dict[str, str | None] = {"lost": None}
    world = World(kept=2, provider=lambda wanted: tokens.get(wanted.user, "t"))
    world.waiting = {"lost"}
    with pytest.raises(TokenExpiredError):
        world.sign("lost")
    for number in range(10):
        world.sign(f"u{number}")
    assert world.users.lost("lost")
    tokens["lost"] = "back"
    world.clock.advance(120)
    world.users.allowed()
    assert (world.woken, world.sign("lost")) == (["lost"], "Bearer back")
    for number in range(10):
        world.sign(f"u{number}")
    assert "lost" not in world.known()


def test_lost_session_that_is_forgotten_pauses_nobody() -> None:
    """The outbox, which waits for a word of its manager, is told to try again."""
    world = World(kept=1, provider=lambda wanted: None if wanted.user == "lost" else "t")
    with pytest.raises(TokenExpiredError):
        world.sign("lost")
    world.sign("next")
    assert (world.known(), world.woken) == ({"next"}, ["lost"])


def test_clients_own_user_is_kept() -> None:
    """Whatever the limit."""
    world = World(kept=1, user="own", token=Secret("t"))
    own = id(world.users.manager("own"))
    for number in range(20):
        world.users.replace(f"u{number}", "t")
    assert id(world.users.manager("own")) == own


def test_room_is_made_in_small_steps() -> None:
    """A thousand users with messages: a new one looks into the outbox a few times, not a thousand."""
    world = World(kept=5)
    world.waiting = {f"u{number}" for number in range(1000)}
    for number in range(1000):
        world.users.replace(f"u{number}", "t")
    assert len(world.known()) == 1000
    assert len(world.looked) <= TRIES * 1000
    world.waiting.clear()
    for _ in range(1000):
        world.users.keep("u0")
    assert len(world.known()) == 5


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_the_lock_is_held() -> None:
    """A child that inherits a held lock, and hears of no fork, signs all the same."""
    world = World(provider=per_user)
    world.sign("a")
    with world.users._lock:
        child = os.fork()
        if child == 0:
            done = False
            try:
                done = [world.sign(user) for user in "ab"] == ["Bearer token-of-a", "Bearer token-of-b"]
            finally:
                os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- whose messages may be claimed


def test_allowed_costs_nothing_while_nothing_changes() -> None:
    """The outbox asks before each turn: the same object, and None where anybody is served."""
    world = World(kept=1000, user="own", token=Secret("t"))
    assert world.users.allowed() == {"own"}
    for number in range(500):
        world.users.replace(f"u{number}", "t")
    first = world.users.allowed()
    assert first is not None
    assert len(first) == 501
    assert world.users.allowed() is first
    world.users.replace("u1", "another")
    assert world.users.allowed() is first
    world.users.replace("new", "t")
    assert world.users.allowed() == {*first, "new"}
    assert World(provider=per_user).users.allowed() is None


def test_users_who_went_are_allowed_no_more() -> None:
    """Within a second."""
    world = World(kept=2)
    for number in range(10):
        world.users.replace(f"u{number}", "t")
    world.users.allowed()
    world.clock.advance(1.5)
    assert world.users.allowed() == world.known() == {"u8", "u9"}


# ---- tokens that are given


def test_same_token_again_changes_nothing() -> None:
    """`as_user(user, token)` in each web request: no event, no wake-up; another token is another matter."""
    world = World()
    first = world.users.replace("alice", "t", again=False)
    assert world.woken == ["alice"]
    for _ in range(5):
        assert world.users.replace("alice", "t", again=False) is first
        world.users.replace("alice", "t")
    assert (world.woken, world.events) == (["alice"], [])
    world.users.replace("alice", "t2", again=False)
    assert (world.woken, world.sign("alice")) == (["alice"] * 2, "Bearer t2")


def test_same_token_again_for_a_lost_session() -> None:
    """A request that brings a dead token revives nothing; who signs in with it on purpose has it tried again."""
    world = World()
    dead = jwt_like("dead", exp=world.clock.time() - 60)
    manager = world.users.replace("alice", dead)
    world.users.observe_skew(0.0)
    signed = request("alice").with_headers({"Authorization": f"Bearer {dead}"})
    with pytest.raises(TokenExpiredError):
        world.users.authorize(signed, True)
    world.users.replace("alice", dead, again=False)
    assert manager.lost
    world.users.replace("alice", dead)
    assert not manager.lost


def test_refreshed_pair_survives_the_token_it_came_from() -> None:
    """Giving the first token again does not bring back a refresh token that is used up, also without a pair on disk."""
    world = World()
    pairs = iter([Token("a2", refresh="r2"), Token("a3", refresh="r3")])
    spent: list[str] = []

    def refresh(user: str, secret: str, deadline: float) -> Token:
        assert secret not in spent
        spent.append(secret)
        return next(pairs)

    world.users._refresh = refresh
    world.users.replace("alice", Token("a1", refresh="r1"))
    assert world.users.authorize(request("alice").with_headers({"Authorization": "Bearer a1"}), True) == {
        "Authorization": "Bearer a2"
    }
    world.users.replace("alice", Token("a1", refresh="r1"), again=False)
    assert world.sign("alice") == "Bearer a2"
    assert spent == ["r1"]


def test_token_that_is_none_leaves_no_trace() -> None:
    """It is refused before anything is made for the user."""
    world = World()
    for bad in ("", "two words", "a\r\nb"):
        with pytest.raises(TokenUnavailableError):
            world.users.replace("bob", bad)
    assert world.known() == set()
    assert world.users.allowed() == frozenset()


def test_first_token_of_the_clients_own_user_may_be_brought() -> None:
    """A client that names a user and has no token: an error that says how, until the user signs in."""
    world = World(user="alice")
    with pytest.raises(SettingsError, match="no token"):
        world.sign("alice")
    world.users.replace("alice", "t")
    assert world.sign("alice") == "Bearer t"


# ---- who a user is


def test_ids_of_users() -> None:
    """10,000 ids of 255 characters: whatever has no control character is taken as it is, the rest is refused."""
    for number in range(10_000):
        rest = f"{number}/../{number}?#%2f'\"; -- é\U0001f600"
        good = rest + "/" * (255 - len(rest))
        assert check_user(good) == good
        for bad in (good[:-1] + "\n", "\r" + good[1:], good + "x", good[:-1] + "\0"):
            with pytest.raises(InvalidArgument):
                check_user(bad)


@pytest.mark.parametrize("claimed", ["a\nb", "\ud800", "x" * 256, "\u2028"], ids=ascii)
def test_user_that_a_token_names_is_checked_too(claimed: str) -> None:
    """Nobody checked what a token says; what is no user's id names nobody."""
    assert World(token=Secret(jwt_like("t", user_id=claimed))).users.default == NOBODY
    assert World(token=Secret(jwt_like("t", user_id="a/b"))).users.default == "a/b"


def test_files_of_users_have_safe_names(tmp_path: Path) -> None:
    """Hashes: slashes lead nowhere, ids that differ in case or form are different users, and no lock is left behind."""
    store = PairStore(tmp_path / "tokens", clock=SystemClock())
    ids = ["a/../../b", "..", "A", "a", "e\u0301", "\u00e9", "x" * 255, "/" * 255, "con", "a b"]
    for number, user in enumerate(ids):
        with store.lock(user, time.monotonic() + 5):
            store.save(user, "origin", Token(f"t{number}"))
    loaded = [store.load(user, "origin") for user in ids]
    assert [each.access.reveal() for each in loaded if each] == [f"t{number}" for number in range(len(ids))]
    names = {path.name for path in (tmp_path / "tokens").iterdir()}
    assert len(names) == 2 * len(ids)
    assert all(set(name.partition(".")[0]) <= set("0123456789abcdef") for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]
    assert pair_files._in_process == {}


def test_lock_of_a_pair_keeps_others_out_while_it_is_put_away(tmp_path: Path) -> None:
    """Eight threads take one user's lock two hundred times: never two at once."""
    store = PairStore(tmp_path / "tokens", clock=SystemClock())
    inside, most = 0, 0

    def take() -> None:
        nonlocal inside, most
        for _ in range(25):
            with store.lock("alice", time.monotonic() + 60):
                inside += 1
                most = max(most, inside)
                inside -= 1

    _in_threads([take] * 8)
    assert (most, inside, pair_files._in_process) == (1, 0, {})


# ---- threads


def test_renewals_of_many_users_share_a_few_threads() -> None:
    """A hundred callers need a hundred tokens of a slow provider: all get theirs, from six threads."""
    inside: list[str] = []
    most = 0

    def provide(wanted: TokenRequest) -> str:
        nonlocal most
        inside.append(wanted.user)
        most = max(most, len(inside))
        threading.Event().wait(0.005)
        inside.remove(wanted.user)
        return per_user(wanted)

    world = World(kept=1000, provider=provide, background=True)
    got: dict[str, str] = {}
    _in_threads([lambda user=f"u{n}": got.update({user: world.sign(user)}) for n in range(100)])  # type: ignore[misc]
    assert got == {f"u{number}": f"Bearer token-of-u{number}" for number in range(100)}
    assert 1 < most <= LIMIT
    settle()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs ends with the test."""
    event = threading.Event()
    yield event
    event.set()
    settle()


def test_provider_that_hangs_for_some_users(gate: threading.Event) -> None:
    """Whoever waits behind them waits no longer than allowed, whoever has a token is served, and closing is bounded."""

    def provide(wanted: TokenRequest) -> str:
        if wanted.user.startswith("hangs"):
            gate.wait(20)
        return per_user(wanted)

    world = World(kept=1000, provider=provide, background=True, timeout=0.3)
    assert world.sign("good") == "Bearer token-of-good"
    failed: list[str] = []

    def hang(user: str) -> None:
        try:
            world.sign(user)
        except TokenUnavailableError:
            failed.append(user)

    _in_threads([lambda user=f"hangs{n}": hang(user) for n in range(LIMIT + 4)])  # type: ignore[misc]
    assert len(failed) == LIMIT + 4
    assert world.sign("good") == "Bearer token-of-good"
    began = time.monotonic()
    world.users.close(0.3)
    assert time.monotonic() - began < 2
    gate.set()
    settle()
    assert world.sign(f"hangs{LIMIT + 3}").startswith("Bearer")


def test_renewal_that_is_interrupted_stops_nobody(gate: threading.Event) -> None:
    """A thread goes on with what waits for it, whatever was raised: what somebody waits for first."""
    threads, ran = RenewalThreads(limit=1), list[str]()

    def interrupted() -> None:
        gate.wait(20)
        raise SystemExit(1)

    assert threads.run(interrupted, urgent=False)
    for name, urgent in (("b1", False), ("a1", True), ("b2", False), ("a2", True)):
        assert threads.run(lambda name=name: ran.append(name), urgent=urgent)  # type: ignore[misc]
    gate.set()
    settle()
    assert ran == ["a1", "a2", "b1", "b2"]


def test_renewals_that_hang_are_replaced(gate: threading.Event) -> None:
    """Those that are late count no more, so the next one runs; but only a few are replaced."""
    threads, ran = RenewalThreads(limit=2, late=0.05), threading.Event()
    for _ in range(100):
        threads.run(lambda: gate.wait(20), urgent=True)  # type: ignore[arg-type]
    assert _alive() == 2
    threading.Event().wait(0.06)
    threads.run(ran.set, urgent=True)
    assert not ran.is_set()  # behind the others that hang
    others = RenewalThreads(limit=1, late=0.05)
    others.run(lambda: gate.wait(20), urgent=True)  # type: ignore[arg-type]
    threading.Event().wait(0.06)
    others.run(ran.set, urgent=True)
    assert ran.wait(10)
    until = time.monotonic() + 20
    while _alive() < 1 + 2 + LATE_LIMIT and time.monotonic() < until:
        threading.Event().wait(0.06)
        threads.run(lambda: None, urgent=False)
    threading.Event().wait(0.1)
    threads.run(lambda: None, urgent=False)
    assert _alive() == 1 + 2 + LATE_LIMIT


def _alive() -> int:
    return sum(thread.name == "chatsdk-token-renewal" for thread in threading.enumerate())


def _in_threads(work: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
