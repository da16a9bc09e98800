"""`chatsdk config`: each setting's value, and where it came from. Secrets are never shown."""

from __future__ import annotations

import click

from ...core.settings import TABLE, Settings
from .. import exits, output
from ..options import Options, passes_options


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@passes_options
def command(options: Options, as_json: bool) -> int:
    """Show each setting and where its value came from."""
    settings = options.settings()
    place = _outbox(settings)
    if as_json:
        output.as_json(
            {
                "settings": {
                    row.name: {
                        "value": settings.show(row.name) if row.secret else getattr(settings, row.name),
                        "source": settings.source(row.name),
                    }
                    for row in TABLE
                },
                "channels": dict(settings.channels),
                "plugins": sorted(settings.plugins),
                "files": list(settings.files),
                "outbox": place,
                "warnings": list(settings.warnings),
            }
        )
        return exits.OK
    rows = [(row.name, settings.show(row.name), settings.source(row.name)) for row in TABLE]
    rows += [(f"channels.{alias}", channel, "file") for alias, channel in sorted(settings.channels.items())]
    output.table(("SETTING", "VALUE", "FROM"), rows)
    for file in settings.files:
        output.note(f"read {file}")
    if place:
        output.note(f"the outbox is in {place}")
    for warning in settings.warnings:
        output.note(f"warning: {output.plain(warning)}")
    return exits.OK


def _outbox(settings: Settings) -> str | None:
    from ...config import state_directory

    return str(state_directory(settings)) if settings.url else None
