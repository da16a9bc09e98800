"""Where settings and state lie on this machine: the only part of the settings that touches it.

The TOML file is the first that exists of `--config`, `CHATSDK_CONFIG`, the user's configuration directory and
`/etc/chatsdk/config.toml`; never one of the working directory, because whoever owns that directory would then choose
the server that gets the token. A file that was named must be there; one that was only found and may not be read is a
warning.

The outbox of one (server, profile) lies in `<state directory>/<host-port>-<hash of the URL>/<profile>`, which can be
computed without a token, so that `chatsdk outbox list` needs none. Those two directories and the files in them are
ours: no links, nobody else's, writable for nobody else. What is above them is not: systemd's may be links.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .core.errors import SettingsError, StorageError
from .core.resolve import resolve
from .core.settings import TABLE, Settings

SYSTEM_FILE = Path("/etc/chatsdk/config.toml")
MAX_FILE_BYTES = 1 << 20
_OURS = 2
"""How many directories at a state path's end are ours: server and profile."""

_ELSEWHERE = "set CHATSDK_STATE_DIR (or state_dir) to a directory that you may write"


def load_settings(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Settings:
    """The settings in force: arguments > environment > TOML file > defaults.

    arguments  by field name (`chatsdk.core.settings`); None means "not given"
    environ    in place of `os.environ`
    config     the TOML file, as if it were an argument

    Raises SettingsError, with the origin of what makes no sense.
    """
    environ = os.environ if environ is None else environ
    named = {**arguments, **({} if config is None else {"config": config})}
    file, warnings = _file(named, environ)
    settings = resolve(named, environ, [] if file is None else [file])
    if file is not None and _holds_secret(file[1]) and _is_world_readable(file[0]):
        warnings.append(f"{file[0]} holds a secret and everybody may read it; chmod 600 it")
    return replace(settings, warnings=(*warnings, *settings.warnings)) if warnings else settings


def _file(
    named: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[tuple[str, Mapping[str, Any]] | None, list[str]]:
    """(name, content) of the TOML file, if there is one, and what to warn of."""
    # the path has to pass the same checks as any other setting, and only one row is needed for that
    chosen = resolve({"config": named.get("config")}, {"CHATSDK_CONFIG": environ.get("CHATSDK_CONFIG", "")})
    if chosen.config:
        path = _expanded(chosen, "config")
        try:
            return (str(path), _read(path)), []
        except OSError as error:
            raise SettingsError(
                f"{path} ({chosen.source('config')}) can't be read: {error.strerror}", code="config_file"
            ) from None
    warnings: list[str] = []
    for path in (*_user_files(), SYSTEM_FILE):
        try:
            return (str(path), _read(path)), warnings
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            warnings.append(f"{path} can't be read: {error.strerror}")
    return None, warnings


def _user_files() -> list[Path]:
    import platformdirs  # costs more than the rest of this module

    try:
        return [platformdirs.user_config_path("chatsdk", appauthor=False) / "config.toml"]
    except RuntimeError:  # a user without a home
        return []


def _expanded(settings: Settings, name: str) -> Path:
    """A path setting with "~" replaced: services and files have no shell that would have done it."""
    path: str = getattr(settings, name)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SettingsError(
            f"{name} = {path!r} ({settings.source(name)}): there is no home directory", code="state_directory"
        ) from None


def _read(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    import tomllib  # most machines have no file

    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is no settings file: longer than {MAX_FILE_BYTES} bytes", code="config_file")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        said = "not UTF-8"
    except RecursionError:
        said = "nested too deeply"
    except tomllib.TOMLDecodeError as error:  # it says the line and quotes no value
        said = str(error).replace("at end of document", f"at line {len(data.splitlines())}, the end")
    raise SettingsError(f"{path}: {said}", code="config_file", hint="correct the TOML file")


def _holds_secret(content: Mapping[str, Any]) -> bool:
    names = {row.key for row in TABLE if row.secret}
    profiles = content.get("profile")
    tables = [content, *(profiles.values() if isinstance(profiles, Mapping) else ())]
    return any(names & table.keys() for table in tables if isinstance(table, Mapping))


def _is_world_readable(path: str) -> bool:
    return os.name == "posix" and bool(os.stat(path).st_mode & stat.S_IROTH)


# ---- the state directory


def state_directory(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """Where the outbox of these settings lies: `<base>/<host-port>-<hash>/<profile>`. Only computes; see
    `prepare_directory`.

    base: the setting `state_dir`, else the first path of `$STATE_DIRECTORY` (systemd), else the platform's state
    directory of this user. Raises SettingsError without `url`, for a relative `state_dir`, and where there is no home.
    """
    url = settings.require("url")
    return _base(settings, os.environ if environ is None else environ) / server_name(url) / settings.profile


def server_name(url: str) -> str:
    """A server's name in the state directory: readable, and different for different URLs."""
    where = re.sub(r"[^a-z0-9.-]+", "-", urlsplit(url).netloc.lower()).strip("-.")[:40]
    return f"{where or 'server'}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _base(settings: Settings, environ: Mapping[str, str]) -> Path:
    if settings.state_dir:
        path = _expanded(settings, "state_dir")
        if not path.is_absolute():
            raise SettingsError(
                f"state_dir ({settings.source('state_dir')}) must be an absolute path: {settings.state_dir!r}",
                code="state_directory",
                hint="relative to the working directory, each directory would have an outbox of its own",
            )
        return path
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    import platformdirs

    try:
        return platformdirs.user_state_path("chatsdk", appauthor=False)
    except RuntimeError:
        raise SettingsError(
            "there is no home directory to keep the outbox in", code="state_directory", hint=_ELSEWHERE
        ) from None


def prepare_directory(path: Path) -> None:
    """Make a directory that `state_directory` gave, with mode 0700, and look whether it may be trusted.

    The last two parts of `path` and the files in it must belong to this user, be no links, and be writable for nobody
    else. Raises SettingsError (with a hint) if they are not, or can't be made; StorageError if the disk is full or
    broken.
    """
    try:
        path.parents[_OURS - 1].mkdir(parents=True, exist_ok=True)
        for part in (*reversed(path.parents[: _OURS - 1]), path):
            _make(part)
            _check(part, os.lstat(part), directory=True)
        for name in os.listdir(path):
            _check_entry(path / name)
    except OSError as error:
        _refuse(path, error)


def _make(path: Path) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    os.chmod(path, 0o700)  # a strange umask could have taken our own rights


def _check_entry(path: Path) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:  # another process cleaned up
        return
    _check(path, found, directory=stat.S_ISDIR(found.st_mode))


def _check(path: Path, found: os.stat_result, *, directory: bool) -> None:
    hint = f"make sure who wrote it, then remove it, or {_ELSEWHERE}"
    if stat.S_ISLNK(found.st_mode):
        raise SettingsError(f"{path} is a link; somebody else could choose where it leads", code="untrusted", hint=hint)
    if directory and not stat.S_ISDIR(found.st_mode):
        raise SettingsError(f"{path} is no directory", code="state_directory", hint=hint)
    if os.name != "posix":
        return
    if found.st_uid != os.geteuid():
        raise SettingsError(
            f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()}",
            code="untrusted",
            hint=f"run as that user, or {_ELSEWHERE}",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = "700" if directory else "600"
        raise SettingsError(f"{path} can be written by others", code="untrusted", hint=f"chmod {mode} {path}")


_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP}


def _refuse(path: Path, error: OSError) -> None:
    message = f"the state directory {error.filename or path} can't be used: {error.strerror}"
    if error.errno in _NOT_OURS:
        raise SettingsError(message, code="state_directory", hint=_ELSEWHERE) from None
    raise StorageError(message) from error
