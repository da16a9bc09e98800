"""A token in a file, read again when the file changes.

Change is seen by device, inode, size and mtime of what the path leads to, so that a rewrite in place, a rename over it
and a link that is turned to another file (as Kubernetes does for mounted secrets) are all noticed. A file that cannot
be read for a moment costs nothing: the token in use stays in use.
"""

from __future__ import annotations

import logging
import os
import stat

from ..core.errors import TokenUnavailableError
from ..core.tokens import Token, TokenRequest
from .sources import MAX_TEXT
from .token_text import parse

log = logging.getLogger("chatsdk.auth")

_Mark = tuple[int, int, int, int]


class TokenFile:
    """The token in the file at `path` (links are followed). Warns once if everybody may read it."""

    name = "file"
    quick = True
    mints = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._read: _Mark | None = None
        self._warned = False

    def get(self, request: TokenRequest, now: float) -> Token | None:
        """What the file holds now. Raises TokenUnavailableError if it cannot be read or holds no token."""
        failure = ""
        try:
            data = self._contents()
        except OSError as error:
            failure = error.strerror or type(error).__name__
        if failure:
            raise TokenUnavailableError(f"the token file {self._path} can't be read: {failure}")
        return parse(data, f"the token file {self._path}")

    def changed(self) -> bool:
        """True if the file is not the one that was read last. False while there is none."""
        try:
            return _mark(os.stat(self._path)) != self._read
        except OSError:
            return False

    def _contents(self) -> bytes:
        # not blocking: a FIFO in its place would otherwise hang everybody
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            self._read = _mark(facts)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(0, "it is no regular file")
            if facts.st_size > MAX_TEXT:
                raise OSError(0, f"it is larger than {MAX_TEXT} bytes")
            if facts.st_mode & stat.S_IROTH and not self._warned:
                self._warned = True
                log.warning("the token file %s can be read by every user of this machine: chmod o-r it", self._path)
            return file.read(MAX_TEXT)


def _mark(facts: os.stat_result) -> _Mark:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
