"""Every block of README.md does what a reader would see it do. How a block is marked: see tests/readme.py.

All blocks run in the order of the page in one folder, which holds copies of examples/ and plugins/, against one
development server. They find it as a user's code does: CHATSDK_URL, CHATSDK_TOKEN, CHATSDK_WS_TOKEN and
CHATSDK_STATE_DIR are set.

Two things are taken as done. A shell block that begins with `python3 -m venv` and `pip install` runs without these:
this environment is the one that they make (`.ci/run` runs them for real), so `.venv/bin/` becomes its folder of
commands. And the block that runs the tests is compared with what `.ci/run` runs, not run: it is running.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.readme import README, ROOT, Block, blocks, parse

COMMANDS = Path(sys.executable).parent
TESTS = "python -m pytest -n auto --dist loadfile"
LASTS = 3.0  # seconds that a block must keep running before it is interrupted
LIMIT = 100.0  # the demo takes 15; where the dice keep a circuit open, longer

BLOCKS = blocks()


@dataclass(frozen=True)
class Desk:
    """Where a reader sits: the working folder, and the environment of every command."""

    folder: Path
    env: dict[str, str]


def set_up_taken_as_done(code: str) -> str:
    """Give a shell block without its making of an environment, with the commands of this one."""
    code = re.sub(r"python3? -m venv \S+\s*(&&|\n)\s*(\\\n\s*)?", "", code)
    code = re.sub(r"(\S*/)?pip install [^&\n]*(&&|\n)\s*(\\\n\s*)?", "", code)
    return code.replace(".venv/bin/", f"{COMMANDS}/")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Start a development server and lay out a folder."""
    from chatsdk.devserver.process import DevServer

    folder = tmp_path_factory.mktemp("reader")
    for name in ("examples", "plugins"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "home").mkdir()
    with DevServer() as server:
        yield Desk(
            folder,
            {
                "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(folder / "home"),
                "LANG": "C.UTF-8",
                "CHATSDK_URL": server.url,
                "CHATSDK_TOKEN": server.tokens["alice"],
                "CHATSDK_WS_TOKEN": server.ws_tokens["alice"],
                "CHATSDK_STATE_DIR": str(folder / "state"),
            },
        )


def run(command: list[str], desk: Desk, *, interrupted: bool) -> None:
    """Run a command to its good end, or until it is interrupted."""
    process = subprocess.Popen(
        command,
        cwd=desk.folder,
        env=desk.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LASTS if interrupted else LIMIT)
    except subprocess.TimeoutExpired:
        if not interrupted:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"still running after {LIMIT} s:\n{process.communicate()[0]}")
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"does not end on Ctrl-C:\n{process.communicate()[0]}")
        assert process.returncode in (0, 130, -signal.SIGINT), output
    else:
        assert not interrupted, f"ended by itself:\n{output}"
        assert process.returncode == 0, output


def test_there_are_blocks() -> None:
    """README.md is there and shows how to try the package and how to test it."""
    assert README.exists(), "README.md is missing"
    shells = [block for block in BLOCKS if block.kind == "shell"]
    assert len(shells) >= 2
    assert "chatsdk demo" in shells[0].code
    assert TESTS in shells[1].code
    assert any(block.kind == "python" for block in BLOCKS)


def test_readers_and_ci_run_the_same_tests() -> None:
    """The command that README.md gives for the tests is the one that decides whether a change lands."""
    (given,) = (block.code for block in BLOCKS if block.kind == "shell" and TESTS in block.code)
    assert set_up_taken_as_done(given).split() == f"{COMMANDS}/{TESTS}".split()
    assert re.search(rf'^step "tests" {TESTS}$', (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert 'pip" install -q -e ".[dev]"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'pip install -q -e ".[dev]"' in given


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line-{block.line}-{block.kind}")
def test_block(block: Block, desk: Desk) -> None:
    """A block of the page runs as it stands there."""
    interrupted = block.argument == "interrupted"
    match block.kind:
        case "shell" if TESTS in block.code:
            pass  # compared above
        case "shell":
            run(["bash", "-euo", "pipefail", "-c", set_up_taken_as_done(block.code)], desk, interrupted=interrupted)
        case "python":
            script = desk.folder / f"readme_line_{block.line}.py"
            script.write_text(block.code, encoding="utf-8")
            run([sys.executable, script.name], desk, interrupted=interrupted)
        case "file":
            file = desk.folder / block.argument
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code, encoding="utf-8")
        case "skip":
            assert re.match(r"because \w+", block.argument), "a block that is not run must say why"
        case "map":
            pass  # test_readme_map.py walks it
        case _:
            pytest.fail(f"no test knows what to do with this block: {block.kind!r}; see tests/readme.py")


EXAMPLE = """\
<!-- map -->
```
a  b
```

```sh
echo 1
```

text <!-- test: shell --> in a line is no marker
```toml
x = 1
```

<!-- test: python interrupted -->
```python
print("```")
```

<!-- test: file conf/a.toml -->
````toml
```
y = 2
````

<!-- test: skip because it needs Django -->
```python
import django
```
"""


def test_markers_are_read() -> None:
    """Each kind of marker is understood, and an unmarked block of a language that does not run is not passed over."""
    assert [(block.line, block.kind, block.argument) for block in parse(EXAMPLE)] == [
        (2, "map", ""),
        (6, "shell", ""),
        (11, "unknown", ""),
        (16, "python", "interrupted"),
        (21, "file", "conf/a.toml"),
        (27, "skip", "because it needs Django"),
    ]
    assert parse(EXAMPLE)[4].code == "```\ny = 2\n"


@pytest.mark.parametrize(
    ("code", "left"),
    [
        (
            'python3 -m venv .venv && .venv/bin/pip install -q ".[demo]" && .venv/bin/chatsdk demo\n',
            "{}/chatsdk demo\n",
        ),
        ("python3 -m venv .venv\n.venv/bin/pip install -q .\n.venv/bin/chatsdk demo\n", "{}/chatsdk demo\n"),
        ("chatsdk send general hello && chatsdk outbox list\n", "chatsdk send general hello && chatsdk outbox list\n"),
    ],
)
def test_only_the_set_up_is_taken_as_done(code: str, left: str) -> None:
    """Of a block that makes an environment the rest is run."""
    assert set_up_taken_as_done(code) == left.format(COMMANDS)


@pytest.mark.parametrize(
    ("code", "interrupted", "passes"),
    [
        ("raise SystemExit(0)", False, True),
        ("raise SystemExit(3)", False, False),
        ("raise SystemExit(0)", True, False),
        ("import threading; threading.Event().wait(50)", True, True),
    ],
)
def test_runner_tells_good_ends_from_bad(code: str, interrupted: bool, passes: bool, tmp_path: Path) -> None:
    """A block that fails is noticed, and so is one that ends although it should run until it is stopped."""
    here = Desk(tmp_path, dict(os.environ))
    if passes:
        run([sys.executable, "-c", code], here, interrupted=interrupted)
    else:
        with pytest.raises(AssertionError):
            run([sys.executable, "-c", code], here, interrupted=interrupted)
