"""Root's command line works as the owner of the outbox, so that it never leaves files of its own there.

A file of root's among somebody's would shut that somebody out. So root becomes the owner of the outbox's directory (or
of the nearest directory above it that there is) before anything is opened: for good, which leaves nothing of root's
rights to plugins and token commands, or for a moment where one command looks into the outboxes of several users.
Settings are read before, as root; what must be read later (a token file) has to be readable for the owner.

Only the command line does this. A program of root's that uses the library is refused a foreign directory: it has
threads and files of its own, and cannot become somebody else behind its author's back.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import SettingsError
from . import output

if TYPE_CHECKING:
    from ..client import ChatClient

_OURS = 2
"""Directories at the end of a state path that may be no links (`chatsdk.config`); above them links are followed."""

_LATER = (
    "chatsdk.auth.token_command",
    "chatsdk.outbox.store",
    "chatsdk.outbox.outbox",
    "chatsdk.pipeline.wire",
    "circuitbreaker",
    "concurrent.futures",
    "email.utils",
    "requests",
    *(("inotify_simple",) if sys.platform.startswith("linux") else ()),
)
_REALTIME = (
    "chatsdk.core.chatsdk_events",
    "chatsdk.core.protocols.centrifugo",
    "chatsdk.core.protocols.plain_json",
    "chatsdk.realtime.backfill",
    "chatsdk.realtime.connection",
    "chatsdk.realtime.cursor_file",
    "chatsdk.realtime.driven",
    "chatsdk.realtime.realtime",
    "chatsdk.realtime.session",
    "chatsdk.realtime.wire",
    "websocket",
)
_CODECS = ("ascii", "idna", "latin-1", "utf-16-le", "utf-8-sig")
"""What is otherwise imported at its first use."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns `path`. `groups`: all of that user's groups, the first one being the user's own."""

    path: Path
    uid: int
    groups: tuple[int, ...]
    name: str


def foreign_owner(directory: Path) -> Owner | None:
    """The owner of `directory`, or of the nearest directory above it that exists, if this is root and that is not."""
    if not _is_root():
        return None
    for depth, path in enumerate((directory, *directory.parents)):
        try:
            facts = os.stat(path, follow_symlinks=depth >= _OURS)
        except OSError:
            continue
        return None if facts.st_uid == 0 else _owner(path, facts.st_uid, facts.st_gid)
    return None


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def _owner(path: Path, uid: int, gid: int) -> Owner:
    import pwd

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # a container's user often has no entry
        return Owner(path, uid, (gid,), f"user {uid}")
    others = [group for group in os.getgrouplist(entry.pw_name, entry.pw_gid) if group != entry.pw_gid]
    return Owner(path, uid, (entry.pw_gid, *others), f"user {uid} ({entry.pw_name})")


def become_owner(chat: ChatClient) -> None:
    """If this is root and the client's outbox belongs to somebody else: become that user, for good. Raises
    SettingsError where root may not (a container without the right to)."""
    if not _is_root():
        return
    from ..config import state_directory

    try:
        owner = foreign_owner(state_directory(chat.settings))
    except SettingsError:
        return  # the call that opens the outbox says it, and not every command makes one
    if owner is None:
        return
    _import_what_comes(chat)
    try:
        os.setgroups(owner.groups)
        os.setresgid(*[owner.groups[0]] * 3)
        os.setresuid(*[owner.uid] * 3)
    except OSError as error:
        raise _may_not(owner, error) from error
    output.note(f"working as {owner.name}, who owns {output.plain(str(owner.path))}")


@contextlib.contextmanager
def acting_as_owner(directory: Path) -> Iterator[None]:
    """If this is root and `directory` belongs to somebody else: be that user meanwhile. There may be no other thread.
    Raises SettingsError as `become_owner`."""
    owner = foreign_owner(directory)
    if owner is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    try:
        try:
            os.setgroups(owner.groups)
            os.setegid(owner.groups[0])
            os.seteuid(owner.uid)
        except OSError as error:
            raise _may_not(owner, error) from error
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        if os.getgroups() != groups:
            os.setgroups(groups)


def _may_not(owner: Owner, error: OSError) -> SettingsError:
    return SettingsError(
        f"{owner.path} belongs to {owner.name}, and this root may not become that user: {error.strerror}",
        code="untrusted",
        hint="run the command as that user",
    )


def import_realtime() -> None:
    """The same for what a realtime connection imports: call it before, where there will be one."""
    for name in _REALTIME:
        import_module(name)


def _import_what_comes(chat: ChatClient) -> None:
    """The owner may not be able to read root's installation, so what may be needed is imported before."""
    for name in _LATER:
        import_module(name)
    for name in _CODECS:
        codecs.lookup(name)
    _ = chat._parts.chain, chat._parts.sender
