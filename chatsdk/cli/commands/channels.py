"""`chatsdk channels ...`: list and create."""

from __future__ import annotations

import click

from .. import exits, output
from ..options import Options, passes_options


@click.group("channels")
def command() -> None:
    """List and create channels."""


@command.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True, help="how many at most")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@passes_options
def list_(options: Options, limit: int, as_json: bool) -> int:
    """The user's channels and all public ones, latest message first."""
    with options.client() as chat:
        found = chat.channels.list(limit=limit)
    if as_json:
        output.as_json({"channels": [channel.to_dict() for channel in found]})
    else:
        output.table(
            ("ID", "TYPE", "NAME", "MEMBERS", "UNREAD"),
            [(each.id, each.type, each.name, each.member_count, each.unread_count) for each in found],
        )
    return exits.OK


@command.command("create")
@click.argument("name")
@click.option("--member", "members", multiple=True, metavar="USER", help="who is in it, beside you; may be repeated")
@click.option("--type", "kind", default="group", show_default=True, help="messaging, group, team, public or private")
@click.option("--key", help="creates it once, however often this is run")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@passes_options
def create(options: Options, name: str, members: tuple[str, ...], kind: str, key: str | None, as_json: bool) -> int:
    """Create a channel and print its id."""
    with options.client() as chat:
        made = chat.channels.create(name, members=members, type=kind, key=key)
    if as_json:
        output.as_json(made.to_dict())
    else:
        output.line(made.id)
    return exits.OK
