"""`chatsdk outbox list --all`: the messages of every server and profile under the state directory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core.errors import ChatError
from ..core.settings import Settings
from ..core.store import Row, Selection, State
from . import exits, output
from .options import ANY_URL, Options
from .rows import SHOWN, facts_of, line_of


def show_all(options: Options, state: State, limit: int, as_json: bool) -> int:
    """List them; an outbox that can't be read is a note, and the exit code is that of the worst one."""
    from ..config import state_directory
    from ..outbox.schema import FILE

    settings = options.settings()
    base = state_directory(settings if settings.url else replace(settings, url=ANY_URL)).parents[1]
    found: list[tuple[str, str, Row]] = []
    code = exits.OK
    for file in sorted(base.glob(f"*/*/{FILE}")):
        server, profile = file.parent.parent.name, file.parent.name
        try:
            found += [(server, profile, row) for row in _rows(settings, file.parent, state, limit)]
        except ChatError as error:
            output.note(f"{file.parent}: {output.plain(error.message)}")
            code = exits.worst(code, exits.of_error(error))
    if as_json:
        output.as_json(
            {"messages": [{"server": server, "profile": profile, **facts_of(row)} for server, profile, row in found]}
        )
        return code
    now = time.time()
    output.table(
        ("SERVER", "PROFILE", *SHOWN),
        [(server, profile, *line_of(facts_of(row), now)) for server, profile, row in found],
    )
    return code


def _rows(settings: Settings, directory: Path, state: State, limit: int) -> Sequence[Row]:
    from ..outbox import store as _  # noqa: F401 - the owner may not be able to read root's installation
    from ..outbox.shared import open_store
    from ..resilience.system_clock import SystemClock
    from .owner import acting_as_owner

    with acting_as_owner(directory):
        store = open_store(directory, clock=SystemClock(), lock_timeout=settings.lock_timeout)
        try:
            return store.list(Selection(states=(state,), limit=limit))
        finally:
            store.close()
