"""The wheel holds the package, all of it and nothing else, and works where there is no checkout.

It is built once from a copy of the tree, without build isolation, and installed into a new environment that borrows the
dependencies of the one that runs the tests; so nothing is downloaded. (`.ci/run` also does it with the real downloads.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

USER_CODE = """\
from typing import assert_type

from chatsdk import ChatClient, Receipt


def report(chat: ChatClient) -> None:
    assert_type(chat.send("general", "hello"), Receipt)
    chat.send("general", 5)
"""


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that knows nothing of this checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean | env, capture_output=True, text=True, timeout=100
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that no earlier build can leak into it and nothing is left in the tree."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("chatsdk", "tests"):  # the tests are there to see that they stay out
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree, cwd=out)
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment; give the folder of its commands."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    done = run(
        *(sys.executable, "-m", "pip", "--python", home / "bin" / "python"),
        *("install", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", wheel),
        cwd=home,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    # A path in a .pth file is appended, and .pth files found there are not read: an editable chatsdk stays unseen.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home / "bin"


def test_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    """Each file of chatsdk/ is in the wheel, py.typed too, and besides them only the metadata."""
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = f"chatsdk-{PROJECT['version']}.dist-info/"
    tree = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "chatsdk").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert "chatsdk/py.typed" in tree
    assert {name for name in names if not name.startswith(metadata)} == tree
    assert f"{metadata}licenses/LICENSE" in names


def test_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """The installed package is imported from the environment, with every public name, and knows its version."""
    code = (
        "import chatsdk, importlib.metadata as m\n"
        "[getattr(chatsdk, name) for name in chatsdk.__all__]\n"
        "print(chatsdk.__file__, chatsdk.__version__, m.version('chatsdk'))"
    )
    done = run(installed / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file, *versions = done.stdout.split()
    assert Path(file).is_relative_to(installed.parent)
    assert versions == [PROJECT["version"]] * 2


def test_entry_points_resolve(installed: Path, tmp_path: Path) -> None:
    """Each command and plugin that the metadata names can be loaded; a missing one would break pytest itself."""
    code = (
        "import importlib.metadata as m\n"
        "for entry in m.distribution('chatsdk').entry_points: print(entry.group, entry.name, bool(entry.load()))"
    )
    done = run(installed / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    declared = {f"console_scripts {name} True" for name in PROJECT["scripts"]}
    for group, entries in PROJECT.get("entry-points", {}).items():
        declared |= {f"{group} {name} True" for name in entries}
    assert set(done.stdout.splitlines()) == declared


def test_command_says_its_version(installed: Path, tmp_path: Path) -> None:
    """`chatsdk --version` runs as a command of the environment."""
    done = run(installed / "chatsdk", "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert PROJECT["version"] in done.stdout


def test_types_are_seen_by_a_checker(installed: Path, tmp_path: Path) -> None:
    """A type checker sees the types of the installed package: a right use passes and a wrong one is refused."""
    (tmp_path / "user.py").write_text(USER_CODE, encoding="utf-8")
    done = run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", installed / "python", "user.py"),
        *("--config-file=", "--no-error-summary", "--cache-dir", tmp_path / "cache"),
        cwd=tmp_path,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("user.py:8: error:")
    assert line.endswith("[arg-type]")
