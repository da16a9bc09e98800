"""`chatsdk plugins`: which plugins there are, what each adds, and why one is disabled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .. import exits, output
from ..options import Options, passes_options

INNERMOST = ("", "transport", "chatsdk")


@click.command("plugins")
@click.option("--chain", is_flag=True, help="show the layers that a call goes through, outermost first")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@passes_options
def command(options: Options, chain: bool, as_json: bool) -> int:
    """List the plugins: name, version, distribution, hooks, and the error if one is disabled."""
    registry = options.registry()
    if chain:
        layers = [(each.middleware.stage.name, each.middleware.name, each.plugin) for each in registry.layers()]
        if as_json:
            names = ("stage", "layer", "plugin")
            output.as_json({"chain": [dict(zip(names, layer, strict=True)) for layer in layers]})
        else:
            output.table(("STAGE", "LAYER", "PLUGIN"), [*layers, INNERMOST])
        return exits.OK
    found = registry.describe()
    if as_json:
        output.as_json({"plugins": found})
    else:
        output.table(("NAME", "VERSION", "DISTRIBUTION", "HOOKS", "STATUS"), [_row(plugin) for plugin in found])
    return exits.OK


def _row(plugin: Mapping[str, Any]) -> tuple[str, ...]:
    hooks = ", ".join(name.removeprefix("chatsdk_") for name in plugin["hooks"])
    status = "on" if not plugin["error"] else plugin["error"]
    return plugin["name"], plugin["version"], plugin["distribution"], hooks, status
