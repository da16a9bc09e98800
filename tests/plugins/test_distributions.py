"""Each distribution below plugins/, as its user has it: installed into a new environment, found by its entry point,
held to its own tests, and gone without a trace when it is uninstalled.

The environment borrows the dependencies of the one that runs the tests, so nothing is downloaded, and chatsdk comes
from the working tree.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*_cache")

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error")
from importlib.metadata import entry_points
from chatsdk import ChatClient
url, token, channel, folder = sys.argv[1:]
with ChatClient(url, token, user="alice", state_dir=f"{folder}/state") as chat:
    receipt = chat.send(channel, "hello", wait=20)
    plugins = chat.plugins()
print(json.dumps({
    "sent": [receipt.state, receipt.attempts],
    "plugins": [{**facts, "version": ""} if facts["built_in"] else facts for facts in plugins],
    "modules": sorted(name for name in sys.modules if name.startswith("chatsdk_")),
    "points": sorted(point.name for point in entry_points(group="chatsdk")),
}))
"""


@dataclass(frozen=True)
class Installed:
    """A distribution in an environment of its own. `clean`: the files there before it came."""

    folder: Path
    python: Path
    site: Path
    clean: frozenset[str]

    @property
    def project(self) -> Mapping[str, Any]:
        """Its metadata."""
        project: Mapping[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))[
            "project"
        ]
        return project

    def run(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a command there that knows nothing of this checkout, and may find plugins."""
        hidden = ("PYTHON", "CHATSDK_", "COVERAGE_", "PYTEST_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        return subprocess.run(
            [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=110
        )

    def pip(self, *arguments: str | Path) -> None:
        """Run pip for that environment."""
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "--quiet",
            "--disable-pip-version-check",
        ]
        done = self.run(*pip, *arguments, cwd=self.site)
        assert done.returncode == 0, done.stdout + done.stderr

    def chatsdk_says(self, server: DevServer, folder: Path) -> dict[str, Any]:
        """What a client says of its plugins, which sent a message that was refused once."""
        server.faults("status", operation="send", status=503, times=1)
        facts = [server.url, server.tokens["alice"], server.channel_id, str(folder)]
        done = self.run(self.python, "-c", PROGRAM, *facts, cwd=folder)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def files(self) -> frozenset[str]:
        """What is installed, but for compiled copies."""
        found = (path.relative_to(self.site) for path in self.site.rglob("*") if path.is_file())
        return frozenset(path.as_posix() for path in found if "__pycache__" not in path.parts)


@pytest.fixture(scope="module", params=PLUGINS, ids=lambda folder: folder.name)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Give a plugin in a new environment, built from a copy, so that nothing is left in the tree."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    # A path in a .pth file is appended, and .pth files found there are not read: an editable install stays unseen.
    (site / "borrowed.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    found = Installed(request.param, home / "bin" / "python", site, frozenset({"borrowed.pth"}))
    assert found.files() == found.clean
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(found.folder, source, ignore=LEFT_BEHIND)
    found.pip("install", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile", source)
    yield found
    assert not list(found.folder.glob("**/*.egg-info")), "the build left something in the tree"


def test_there_are_plugins() -> None:
    """The folder holds distributions, each called as ours are, with a README of its own."""
    assert {"chatsdk-opentelemetry", "chatsdk-prometheus"} <= {folder.name for folder in PLUGINS}
    for folder in PLUGINS:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert project["name"] == folder.name
        assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# {folder.name}\n")


def test_found_by_its_entry_point(installed: Installed, devserver: DevServer, tmp_path: Path) -> None:
    """A client lists it by its entry point's name, with its hooks, and has no complaint; its messages arrive."""
    said = installed.chatsdk_says(devserver, tmp_path)
    (name,) = installed.project["entry-points"]["chatsdk"]
    assert name in said["points"]
    assert said["sent"] == ["SENT", 2]
    (facts,) = (each for each in said["plugins"] if not each["built_in"])
    assert (facts["name"], facts["distribution"], facts["error"]) == (name, installed.project["name"], "")
    assert facts["version"] == installed.project["version"]
    assert facts["hooks"]


def test_its_own_tests_pass(installed: Installed, tmp_path: Path) -> None:
    """Its test suite, run as its author would, over what was installed; nothing is skipped."""
    shutil.copytree(installed.folder / "tests", tmp_path / "tests", ignore=LEFT_BEHIND)
    shutil.copy(installed.folder / "pyproject.toml", tmp_path)
    pytest_: list[str | Path] = [
        installed.python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        tmp_path / "temp",
    ]
    done = installed.run(*pytest_, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), done.stdout


def test_uninstalled_without_a_trace(installed: Installed, devserver: DevServer, tmp_path: Path) -> None:
    """Afterwards no file and no entry point of it is left; a client has the built-in plugins, imports nothing of it,
    and its messages arrive. (The last test of this file: it takes away what the others use.)"""
    installed.pip("uninstall", "--yes", installed.project["name"])
    assert installed.files() == installed.clean
    said = installed.chatsdk_says(devserver, tmp_path)
    assert not set(said["points"]) & set(installed.project["entry-points"]["chatsdk"])
    assert said["sent"] == ["SENT", 2]
    assert [each["name"] for each in said["plugins"] if not each["built_in"]] == []
    assert said["modules"] == []
