"""The option `--full` (every point of a long run, where the everyday run takes every point of a short one), and what
the tests share: a server, and the processes that send."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatsdk.devserver.process import DevServer
from tests.chaos import strace
from tests.chaos.runs import Run
from tests.chaos.template import Template

SIDE_BY_SIDE = 2
"""Runs at a time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registered here, so it is known where this folder is named on the command line."""
    parser.addoption("--full", action="store_true", help="chaos: kill at every point of 30 rounds, in place of 3")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long run needs more than a test's usual time."""
    if config.getoption("--full", default=False):
        for item in items:
            if item.path.is_relative_to(__file__.removesuffix("conftest.py")):
                item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether `--full` was given."""
    return bool(request.config.getoption("--full", default=False))


@pytest.fixture(scope="session")
def can_inject() -> None:
    """Skip where strace is missing or may not attach."""
    reason = strace.why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="package")
def server() -> Iterator[DevServer]:
    """One development server in a process of its own."""
    with DevServer() as server:
        yield server


@pytest.fixture(scope="package")
def templates(tmp_path_factory: pytest.TempPathFactory, server: DevServer) -> Iterator[list[Template]]:
    """As many templates as runs side by side, each with everything imported that a run needs."""
    directories = [tmp_path_factory.mktemp("template") for _ in range(SIDE_BY_SIDE)]
    made = [Template(directory) for directory in directories]
    try:
        for template in made:
            run = Run(template.directory, server, (server.channel("alice"),))
            template.learn(rounds=1, **run.job)
        yield made
    finally:
        for template in made:
            template.__exit__(None, None, None)
