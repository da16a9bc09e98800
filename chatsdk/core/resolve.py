"""How the values of the settings are found. Pure: `chatsdk.config` hands in the environment and the parsed files.

Rules. Arguments > environment > TOML profile > TOML top level > default; None and an empty environment variable mean
"not given". A value that makes no sense is a `SettingsError` that says where it came from and what is allowed (the
value of a secret is never shown). A name that nobody knows is an error among arguments and a warning elsewhere, each
with the nearest name: an environment may hold what another version knows. Presets fill those rows that nobody set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from .errors import SettingsError
from .settings import DEVELOPMENT_CHANNELS, PREFIX, PRESETS, ROWS, TABLE, Setting, Settings

PLUGIN_PREFIX = "CHATSDK_PLUGIN_"

_TABLES = ("channels", "plugins")
"""What arguments and files may hold beside the rows."""


class _Layer(NamedTuple):
    """One place where settings stand: `source` as `Settings.source` gives it (for the environment that is the
    variable's name), `where` for people, `table` by field name."""

    source: str
    where: str
    table: Mapping[str, Any]

    @property
    def is_file(self) -> bool:
        return self.source.startswith("file")


def resolve(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str],
    files: Sequence[tuple[str, Mapping[str, Any]]] = (),
    profile: str | None = None,
) -> Settings:
    """The settings in force.

    arguments   by field name; also `channels` and `plugins`, as mappings
    files       (name, parsed TOML), the first one wins
    profile     as if it were an argument

    Raises SettingsError, with the origin of the value that makes no sense and what is allowed.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if profile is not None:
        given["profile"] = profile
    for name in given:
        if name not in ROWS and name not in _TABLES:
            raise SettingsError(f"there is no setting {name!r}{_nearest(name, [*ROWS, *_TABLES])}", code="unknown")
    variables = {row.name: value for row in TABLE if (value := environ.get(row.environ))}
    outer = [_Layer("argument", "the argument", given), _Layer("environ", "the environment:", variables)]
    chosen, source = _find(ROWS["profile"], outer) or ("default", "default")
    layers = [*outer, *_file_layers(chosen, source, files)]

    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for row in TABLE:
        hit = (chosen, source) if row.name == "profile" else _find(row, layers)
        if hit is not None:
            found[row.name], sources[row.name] = hit
    for preset, choices in PRESETS.items():
        for target, number in choices[found[preset]].items() if preset in found else ():
            if target not in found:
                found[target], sources[target] = number, f"{preset}={found[preset]}"
    settings = Settings(
        **found,
        channels={**DEVELOPMENT_CHANNELS, **_merged("channels", layers, _alias)},
        plugins=PluginSettings(_merged("plugins", layers, _mapping), environ),
        warnings=tuple(_warnings(environ, layers[2:])),
        files=tuple(name for name, _ in files),
        sources={**dict.fromkeys(ROWS, "default"), **sources},
    )
    _check(settings)
    return settings


def _find(row: Setting, layers: Iterable[_Layer]) -> tuple[Any, str] | None:
    """(value, source) out of the first layer that has the row."""
    for layer in layers:
        if row.name not in layer.table or (layer.is_file and row.key is None):
            continue
        value = layer.table[row.name]
        name = row.environ if layer.source == "environ" else row.name
        try:
            return row.kind.parse(value), row.environ if layer.source == "environ" else layer.source
        except (ValueError, TypeError, OverflowError):
            message = f"{layer.where} {name}{_shown(row, value)} must be {row.kind.allowed}"
            raise SettingsError(message, code="invalid") from None  # the cause could quote a secret
    return None


def _shown(row: Setting, value: Any) -> str:
    """` = 'value'`, cut; nothing of a secret, nor of an address with a password or a token in it."""
    text = repr(value)
    if row.secret or "@" in text or "?" in text:
        return ""
    return f" = {text if len(text) <= 60 else text[:57] + '...'}"


def _file_layers(profile: str, source: str, files: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[_Layer]:
    """Each file's profile, then its top level. A profile that somebody asked for and that no file knows, though there
    are profiles, is misspelt: its settings and its outbox would silently be other ones."""
    names: list[str] = []
    for file, content in files:
        profiles = _mapping(content.get("profile", {}), f"{file}: [profile]")
        names += profiles
        if profile in profiles:
            where = f"{file}: [profile.{profile}]"
            yield _Layer(f"file:profile.{profile}", where, _mapping(profiles[profile], where))
        yield _Layer("file", f"{file}:", content)
    if names and profile not in names and source != "default":
        raise SettingsError(f"there is no [profile.{profile}]{_nearest(profile, names)}", code="unknown")


_T = TypeVar("_T")


def _merged(name: str, layers: Sequence[_Layer], read: Callable[[Any, str], _T]) -> dict[str, _T]:
    """The table `name` over all layers, an outer layer's entry in place of an inner one's."""
    entries: dict[str, _T] = {}
    for layer in reversed(layers):
        table = _mapping(layer.table.get(name, {}), f"{layer.where} {name}")
        entries.update({str(key): read(value, f"{layer.where} {name}.{key}") for key, value in table.items()})
    return entries


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a table", code="invalid")
    return value


def _alias(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{where} must be a channel's id, as text", code="invalid")
    return value


def _check(settings: Settings) -> None:
    """What one value says about another."""
    for small, large, why in (
        ("ttl", "key_retention", "a message that is sent again after the server forgot its key would be there twice"),
        ("circuit_open_first", "circuit_open_max", "the first wait is the shortest"),
    ):
        if getattr(settings, small) > getattr(settings, large):
            facts = " and ".join(f"{name} = {settings.show(name)} ({settings.source(name)})" for name in (small, large))
            raise SettingsError(f"{small} must not be more than {large}: {facts}; {why}", code="invalid")
    for name in ("url", "ws_url") if settings.loopback_only else ():
        url = getattr(settings, name)
        if url and not _is_loopback(urlsplit(url).hostname or ""):
            raise SettingsError(
                f"{name} ({settings.source(name)}) is not on this machine, and loopback_only"
                f" ({settings.source('loopback_only')}) is set",
                code="invalid",
                hint="tests set it, so that none of them reaches a real server",
            )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdecimal())


def _warnings(environ: Mapping[str, str], layers: Iterable[_Layer]) -> Iterator[str]:
    """Names that nobody knows."""
    variables = [row.environ for row in TABLE]
    for name in sorted(environ):
        if name.startswith(PREFIX) and not name.startswith(PLUGIN_PREFIX) and name not in variables:
            yield f"{name} in the environment is no setting{_nearest(name, variables)}"
    keys = [row.key for row in TABLE if row.key]
    for layer in layers:
        for name in layer.table:
            if name not in keys and name not in _TABLES and not (layer.source == "file" and name == "profile"):
                yield f"{layer.where} {name} is no setting{_nearest(name, [*keys, *_TABLES])}"


def _nearest(name: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


class PluginSettings(Mapping[str, Mapping[str, Any]]):
    """`[plugins.NAME]`, overlaid by `CHATSDK_PLUGIN_NAME_KEY` (as text, keys in lower case).

    NAME stands in the environment in upper case, with "_" for what is no letter or digit. It may hold "_" itself, so
    which part is the name shows only when a plugin asks by its own: `settings.plugins.get(name, {})`. What is left over
    when all are listed is taken to have a name of one word.
    """

    def __init__(self, tables: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]) -> None:
        self._tables = {name: dict(table) for name, table in tables.items()}
        self._environ = {
            name.removeprefix(PLUGIN_PREFIX): value for name, value in environ.items() if name.startswith(PLUGIN_PREFIX)
        }

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        start = _word(name)
        told = {key.removeprefix(start).lower(): value for key, value in self._environ.items() if key.startswith(start)}
        told.pop("", None)
        if not told and name not in self._tables:
            raise KeyError(name)
        return {**self._tables.get(name, {}), **told}

    def __iter__(self) -> Iterator[str]:
        yield from self._tables
        listed = tuple(_word(name) for name in self._tables)
        rest = {key.partition("_")[0].lower() for key in self._environ if not key.startswith(listed)}
        yield from sorted(name for name in rest - self._tables.keys() if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:  # a value may be a secret
        return f"PluginSettings({', '.join(self)})"


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.upper()) + "_"
