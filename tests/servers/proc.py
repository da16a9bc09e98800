"""What a process has open, as the kernel says it: sockets by their inodes, files by their paths, kernel locks."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def descriptors(pid: int) -> dict[str, str]:
    """What each descriptor of a process leads to."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def sockets_to(pid: int, port: int) -> set[str]:
    """The inodes of a process's TCP sockets that are connected to a port of this machine. Two processes with one inode
    hold one socket."""
    connected = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port:
            connected.add(f"socket:[{fields[9]}]")
    return connected & set(descriptors(pid).values())


def owner_files(pid: int) -> set[str]:
    """The files by which a process shows that it lives, of those that it has open."""
    return {where for where in descriptors(pid).values() if "/owners/" in where}


def locked(pid: int) -> set[int]:
    """The inodes of the files on which a process holds a kernel lock that keeps others out."""
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "POSIX" and fields[3] == "WRITE" and fields[4] == str(pid):
            found.add(int(fields[5].rpartition(":")[2]))
    return found


def share_nothing(everybody: Collection[int], port: int) -> None:
    """Assert that no two of these processes, all of which have spoken to the server, hold one socket to it, or one
    owner's file; and that each such file is locked by the process that has it open."""
    sockets = {pid: sockets_to(pid, port) for pid in everybody}
    owners = {pid: owner_files(pid) for pid in everybody}
    for pid in everybody:
        assert len(owners[pid]) <= 1, f"{pid} is more than one owner: {owners}"
        assert {os.stat(path).st_ino for path in owners[pid]} <= locked(pid), f"{pid} does not hold its lock"
        assert sockets[pid], f"{pid} has no connection of its own: {sockets}"
        for other in everybody:
            if other != pid:
                assert not sockets[pid] & sockets[other], (pid, other)
                assert not owners[pid] & owners[other], (pid, other)


def is_gone(pid: int) -> bool:
    """A process has ended, whether its parent knows it or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
