"""This machine: settings, the state directory, plugins. Nothing is made or changed that was not there before."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ...config import prepare_directory, state_directory
from ...core.errors import ChatError
from ...core.settings import Settings
from ..options import Options
from ..owner import acting_as_owner
from . import verdicts
from .findings import Finding, fail, ok, warn

_ELSEWHERE = "make it writable for this user, or set state_dir (CHATSDK_STATE_DIR) to a directory that is"


def settings(found: Settings) -> Finding:
    """Whether all that was set has a meaning."""
    if found.warnings:
        return warn("settings", "; ".join(found.warnings), "`chatsdk config` shows each value and where it came from")
    return ok("settings", f"{found.url} (from {found.source('url')})")


def directory(found: Settings) -> Finding:
    """Whether messages can be kept: the directory is there (or can be made), is ours, and can be written."""
    try:
        path = state_directory(found)
        with acting_as_owner(path):
            return _writable(path)
    except ChatError as error:
        return fail("state directory", error.message, error.hint)
    except OSError as error:
        what = error.strerror or type(error).__name__
        return fail("state directory", f"{error.filename or 'it'} can't be used: {what}", _ELSEWHERE)


def _writable(path: Path) -> Finding:
    if not os.path.lexists(path):
        above = next(parent for parent in path.parents if os.path.lexists(parent))
        _try_to_write(above)
        return ok("state directory", f"{path} is not there yet, and can be made")
    prepare_directory(path)  # makes nothing: it is there
    _try_to_write(path)
    return ok("state directory", f"{path} is ours and writable")


def _try_to_write(path: Path) -> None:
    """What permissions say is not all: file systems are full or read-only. Raises OSError."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"chatsdk")
            file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def plugins(options: Options) -> Finding:
    """Whether each plugin could be loaded."""
    try:
        return verdicts.of_plugins(options.registry().describe())
    except ChatError as error:
        return fail("plugins", error.message, error.hint)
