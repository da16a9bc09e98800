"""What a type checker must accept and what it must refuse in users' code.

`typing/ok.py` is code that users write: not one error. In each `typing/bad_*.py` a line that ends in `# E: CODE` must
give exactly the mypy error of that code, and every other line none. So a public name that quietly becomes `Any` (a lazy
`__getattr__` alone makes every name that) fails here: the mistakes on purpose would pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CASES = Path(__file__).with_name("typing")
FILES = sorted(file.name for file in CASES.glob("*.py"))

Errors = Counter[tuple[int, str]]


def expected(file: Path) -> Errors:
    """Give line number and error code of each marked line."""
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
    return Counter((number, code) for number, line in lines for code in re.findall(r"# E: ([\w-]+)", line))


@pytest.fixture(scope="module")
def found() -> dict[str, Errors]:
    """Check all files in one run of mypy, with the settings that the package itself is checked with."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", str(ROOT / "setup.cfg")]
    silent = ["--follow-imports", "silent"]  # what is wrong in the package itself is another check's business
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run([*mypy, *silent, *FILES], cwd=CASES, env=env, capture_output=True, text=True, timeout=110)
    assert done.stderr == ""
    errors: dict[str, Errors] = {name: Counter() for name in FILES}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(\S+?):(\d+): error: .*\[([\w-]+)\]", line):
            errors[match[1]][int(match[2]), match[3]] += 1
        else:
            assert ": note: " in line, line
    return errors


@pytest.mark.parametrize("name", FILES)
def test_checker_says_exactly_this(found: dict[str, Errors], name: str) -> None:
    """Each marked mistake is refused for its own reason, and nothing else is."""
    assert found[name] == expected(CASES / name)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("bad_")])
def test_bad_files_hold_a_mistake(name: str) -> None:
    """A file of mistakes marks at least one: an empty one would test nothing."""
    assert expected(CASES / name)


def test_there_are_right_and_wrong_cases() -> None:
    """Both kinds are there, and what is right is marked nowhere as wrong."""
    assert "ok.py" in FILES
    assert not expected(CASES / "ok.py")
    assert len(FILES) > 3
