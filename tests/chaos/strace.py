"""strace's fault injection: count a process's system calls, and kill it at the n-th of one name.

strace attaches to a child that waits, so the calls of imports are neither counted nor hit. Without --seccomp-bpf: with
it a call that is let through uncounted would shift every later point.
"""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "sendto")
"""Where a process is killed: at all that makes something durable, or tells somebody."""

Point = tuple[str, int]
"""The n-th call, from 1, of one name."""

_ATTACH_S = 10.0
_LINE = re.compile(r"(\d+) +(\w+)\(")


def why_not() -> str | None:
    """Why strace can't be used here; None if it can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "there is no strace"
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with attached(victim.pid, "-e", "trace=write"):
            victim.communicate(b"\n")
        return None
    except CannotAttach as error:
        return f"strace may not attach: {error}"
    finally:
        victim.kill()
        victim.communicate()


class CannotAttach(Exception):
    """What strace said."""


@contextlib.contextmanager
def attached(pid: int, *options: str) -> Iterator[None]:
    """strace at work on a process and its threads; at the end, the process's end is awaited."""
    command = ["strace", "-f", *options, "-p", str(pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        ready = select.select([strace.stderr], [], [], _ATTACH_S)[0]
        said = strace.stderr.readline().decode() if ready else "nothing"
        if "attached" not in said:
            strace.kill()
            raise CannotAttach(said.strip())
        yield


def kill_at(call: str, n: int) -> Sequence[str]:
    """Options: SIGKILL at the n-th `call`, from 1."""
    return ("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}")


def count_into(path: Path, calls: Sequence[str] = CALLS) -> Sequence[str]:
    """Options: write down every call of these."""
    return ("-o", str(path), "-e", f"trace={','.join(calls)}")


def counted(path: Path) -> Counter[str]:
    """How often each of them was called. One thread only: strace counts for each by itself."""
    found = [match.groups() for match in map(_LINE.match, path.read_text().splitlines()) if match]
    assert len({thread for thread, _ in found}) == 1, "the one-shot client started a thread"
    return Counter(call for _, call in found)
