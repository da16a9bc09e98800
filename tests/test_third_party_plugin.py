"""A plugin from somebody else: installed as a distribution of its own, found by its entry point, at work.

`examples/third_party_plugin` is built and installed into a folder, as pip would for any user, and used from a new
process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.kit import Peer, RawServer, http

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "third_party_plugin"

PROGRAM = """
import json, sys
from chatsdk.core.errors import NotAcceptedError
from chatsdk.pipeline.registry import Registry
from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import Client, send

url, forbidden = sys.argv[1:]
client = Client(url=url, discover=True, retry_first=0.001, plugins={"shout": {"forbidden": forbidden}})
registry = Registry(client)
chain = registry.chain(Transport(url))
try:
    refused = registry.accept(send()) and ""
except NotAcceptedError as error:
    refused = f"{error.plugin}: {error.message}"
else:
    chain(registry.accept(send()))
print(json.dumps({
    "plugin": next(facts for facts in registry.describe() if facts["name"] == "shout"),
    "layers": [layer.middleware.name for layer in registry.layers()],
    "refused": refused,
    "tries": client.metrics.value("shout_tries_messages.send"),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that holds the installed plugin and nothing else."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run(installed: Path, *arguments: str) -> dict[str, object]:
    """What the program prints in a process that sees the plugin."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_installed_plugin_works(installed: Path) -> None:
    """It is found, described, asked before the message is stored, and runs once per call and once per try."""
    answers = [http(b"{}", "503 Down"), http(b'{"id": "1"}', "201 Created")]

    def behave(peer: Peer) -> None:
        while peer.request() is not None:
            peer.say(answers.pop(0))

    server = RawServer(behave)
    try:
        found = run(installed, server.url, "darn")
    finally:
        server.stop()
    assert found["plugin"] == {
        "name": "shout",
        "distribution": "chatsdk-contrib-shout",
        "version": "0.1.0",
        "built_in": False,
        "hooks": ["chatsdk_accept", "chatsdk_middleware"],
        "layers": [{"name": "shout-mark", "stage": "CALL"}, {"name": "shout-count", "stage": "ATTEMPT"}],
        "error": "",
    }
    assert found["layers"] == ["telemetry", "shout-mark", "dedup", "retry", "shout-count", "breaker", "auth"]
    assert (found["refused"], found["tries"]) == ("", 2)
    assert len(server.requests) == 2
    assert all(b'"text":"HELLO"' in request and b"X-Shout: 1" in request for request in server.requests)


def test_installed_plugin_may_refuse(installed: Path) -> None:
    """Its refusal reaches the sender with its name, and nothing is sent."""
    server = RawServer(lambda peer: peer.hold())
    try:
        found = run(installed, server.url, "hello darn")
    finally:
        server.stop()
    assert found["refused"] == "shout: we do not say 'hello' here"
    assert server.connections == 0


def test_its_own_tests_pass(installed: Path) -> None:
    """The example's test suite, run as its author would."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE), "tests"]
    done = subprocess.run(command, cwd=EXAMPLE, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
