"""The onion: order, repeated calls, and whose fault it was."""

from __future__ import annotations

import contextlib
import gc
import pickle
import time
import weakref
from collections.abc import Callable

import pytest

from chatsdk.core.errors import ChatError, NotSentError, PluginError
from chatsdk.core.exchange import CallNext, Request, Response
from chatsdk.hookspecs import Middleware, Stage
from chatsdk.pipeline.chain import Layer, compose
from chatsdk.pipeline.registry import Registry
from tests.pipeline.kit import Client, Script, read, send

OK = Response(status=200)


def layer(name: str, call: Callable[[Request, CallNext], Response], *, ours: bool = False) -> Layer:
    return Layer(name, Middleware(name, Stage.CALL, call), ours)


def through(request: Request, call_next: CallNext) -> Response:
    return call_next(request)


def test_layers_run_from_the_outside_in() -> None:
    """The first layer sees the request first and the response last."""
    seen: list[str] = []

    def note(name: str) -> Callable[[Request, CallNext], Response]:
        def call(request: Request, call_next: CallNext) -> Response:
            seen.append(f"{name} in")
            response = call_next(request.replace(attempt=request.attempt + 1))
            seen.append(f"{name} out")
            return response

        return call

    end = Script(OK)
    chain = compose([layer("a", note("a")), layer("b", note("b"), ours=True), layer("c", note("c"))], end)
    assert chain(read()) is OK
    assert seen == ["a in", "b in", "c in", "c out", "b out", "a out"]
    assert end.seen[0].attempt == 4


def test_the_rest_may_be_called_any_number_of_times() -> None:
    """A layer may answer itself, or try again: each call_next begins at its own place."""

    def twice(request: Request, call_next: CallNext) -> Response:
        call_next(request)
        return call_next(request)

    def never(request: Request, call_next: CallNext) -> Response:
        return OK

    end = Script(OK)
    compose([layer("twice", twice), layer("again", twice, ours=True)], end)(read())
    assert len(end.seen) == 4
    assert compose([layer("never", never)], Script(RuntimeError()))(read()) is OK


def test_error_of_a_plugin_carries_its_name() -> None:
    """What a third party's layer raises becomes PluginError, with its name and cause; its text stays in the cause."""

    def broken(request: Request, call_next: CallNext) -> Response:
        raise ValueError("token=geheim")

    chain = compose([layer("outer", through), layer("broken", broken), layer("inner", through)], Script(OK))
    with pytest.raises(PluginError) as caught:
        chain(send())
    error = caught.value
    assert (error.plugin, error.request_id, error.retryable) == ("broken", "corr-1", False)
    assert isinstance(error.__cause__, ValueError)
    assert "geheim" not in str(error)
    assert "messages.send" in str(error)
    assert pickle.loads(pickle.dumps(error)).plugin == "broken"


def test_error_from_further_in_is_not_blamed_on_who_it_passes() -> None:
    """Neither our errors nor a stranger's become the fault of the layers that they pass through."""
    layers = [layer("outer", through), layer("ours", through, ours=True), layer("inner", through)]
    for failure in (NotSentError("no"), RuntimeError("a bug of ours"), KeyboardInterrupt()):
        with pytest.raises(type(failure)) as caught:
            compose(layers, Script(failure))(read())
        assert caught.value is failure
        assert not hasattr(failure, "__notes__")


def test_error_that_a_plugin_kept_and_raised_again_is_not_its_own() -> None:
    """A plugin that tries again and then raises the first error did not cause it."""

    def again(request: Request, call_next: CallNext) -> Response:
        try:
            return call_next(request)
        except ChatError as first:
            try:
                return call_next(request)
            except ChatError:
                raise first from None

    first = NotSentError("first")
    with pytest.raises(NotSentError) as caught:
        compose([layer("again", again)], Script(first, NotSentError("second")))(read())
    assert caught.value is first
    assert not hasattr(first, "__notes__")


def test_a_plugins_own_chat_error_stays_what_it_is() -> None:
    """A plugin may raise a ChatError on purpose; it gets a note that says whose it is."""

    def refuse(request: Request, call_next: CallNext) -> Response:
        raise NotSentError("not today")

    with pytest.raises(NotSentError) as caught:
        compose([layer("outer", through), layer("refuses", refuse)], Script(OK))(read())
    assert caught.value.__notes__ == ["raised by the plugin 'refuses'"]


def test_error_raised_from_an_inner_one_is_the_plugins() -> None:
    """Turning an error into another one is the plugin's doing."""

    def turn(request: Request, call_next: CallNext) -> Response:
        try:
            return call_next(request)
        except ChatError as error:
            raise KeyError("x") from error

    with pytest.raises(PluginError, match="turns"):
        compose([layer("turns", turn)], Script(NotSentError("no")))(read())


@pytest.mark.parametrize("returned", [None, {"status": 200}, 200])
def test_no_response_is_the_plugins_error(returned: object) -> None:
    """A layer that forgets to return is named."""
    with pytest.raises(PluginError, match=r"forgets.*no Response") as caught:
        compose([layer("forgets", lambda request, call_next: returned)], Script(OK))(read())  # type: ignore[arg-type, return-value]
    assert caught.value.plugin == "forgets"


def test_a_passing_error_leaves_no_cycle() -> None:
    """An error that passed a guard is freed with its last reference, with the sockets and frames it holds."""
    raised: list[weakref.ref[NotSentError]] = []

    def fail(request: Request) -> Response:
        error = NotSentError("no")
        raised.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    chain = compose([layer("outer", through), layer("inner", through)], fail)
    gc.disable()
    try:
        with contextlib.suppress(NotSentError):
            chain(read())
        assert raised[0]() is None
    finally:
        gc.enable()


def test_the_default_chain_is_cheap() -> None:
    """All built-in layers together take no more than a few microseconds (10 on a quiet machine, measured best of 5)."""
    chain = Registry(Client()).chain(lambda request: OK)
    request = send(single_try=True)

    def microseconds() -> float:
        began = time.perf_counter()
        for _ in range(2000):
            chain(request)
        return (time.perf_counter() - began) / 2000 * 1e6

    assert (
        min(microseconds() for _ in range(5)) < 50
    )  # a regression by a lock, a log record or a uuid is more than that
