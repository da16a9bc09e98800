"""The map in README.md is the tree: what it lists exists, and what must be found there is listed.

The map is the fenced block after the comment `<!-- map -->`: one `path  description` a line, the path from the top.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme import README, ROOT, blocks

TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "chatsdk",
    "examples",
    "plugins",
    "pyproject.toml",
    "setup.cfg",
    "tests",
}
BUILT = {"__pycache__", "build", "dist"}


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """Give the paths of the map with their descriptions."""
    assert README.exists(), "README.md is missing"
    maps = [block for block in blocks() if block.kind == "map"]
    assert len(maps) == 1, "README.md must hold one map: a fenced block after the comment <!-- map -->"
    rows = [line.split(maxsplit=1) for line in maps[0].code.splitlines() if line.strip()]
    paths = [row[0].rstrip("/") for row in rows]
    assert len(set(paths)) == len(paths), "a path is listed twice"
    return dict(zip(paths, (row[1].strip() if len(row) > 1 else "" for row in rows), strict=True))


def top_level() -> set[str]:
    """Give the entries of the top folder, less dot-files and what builds leave behind."""
    names = {entry.name for entry in ROOT.iterdir()}
    return {name for name in names - BUILT if not name.startswith(".") and not name.endswith(".egg-info")}


def packages() -> set[str]:
    """Give the packages of chatsdk/, as paths from the top."""
    return {file.parent.relative_to(ROOT).as_posix() for file in (ROOT / "chatsdk").rglob("__init__.py")}


def test_what_is_listed_exists(listed: dict[str, str]) -> None:
    """No line of the map leads nowhere, and each says what is there."""
    assert [path for path in listed if not (ROOT / Path(path)).exists()] == []
    assert [path for path, description in listed.items() if not description] == []


def test_packages_are_listed(listed: dict[str, str]) -> None:
    """Each folder of the package is on the map."""
    assert "chatsdk" in packages()
    assert packages() - set(listed) == set()


def test_top_level_is_listed(listed: dict[str, str]) -> None:
    """Each entry of the top folder is on the map."""
    assert top_level() - set(listed) == set()


def test_top_level_is_as_agreed() -> None:
    """Nothing new appears at the top: its entries are fixed."""
    assert top_level() <= TOP_LEVEL
    assert {"LICENSE", "README.md", "chatsdk", "pyproject.toml", "setup.cfg", "tests"} <= top_level()


def test_settings_are_those_of_the_code() -> None:
    """The table of settings in README.md is the one that the code has."""
    from chatsdk.core.settings import settings_table

    assert settings_table() in README.read_text(encoding="utf-8")
