"""`chatsdk status`: do messages flow, why not, and since when?

It makes a connection of its own, as a program with these settings would, looks at network, outbox, circuits and
features, and says how they are; with `--watch` it stays and shows every change (`chatsdk.cli.status`).

With `--check` it is for monitors and health checks (cron, Nagios, a container's probe): it looks at the outbox only,
needs neither token nor network, and its answer is the exit code: 0, or 1 and a line that says why. Whatever stops
messages, a dead server, a lost token, a worker that does not run, is seen there: they wait for too long.
"""

from __future__ import annotations

import time
from typing import Any

import click

from ...core.errors import ChatError
from .. import exits, output
from ..options import Options, passes_options, seconds

MAX_AGE = 600.0
MAX_DEAD = 0
"""What `--check` allows, if it is not told."""


@click.command("status")
@click.option("--watch", is_flag=True, help="stay, and show every change, until Ctrl-C")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object (with --watch: one a change)")
@click.option("--check", is_flag=True, help="for monitors: look at the outbox only; exit 0, or 1 if it needs a look")
@click.option(
    "--max-age",
    callback=seconds,
    metavar="TIME",
    help="how long the oldest message may wait for --check [default: 10m]",
)
@click.option("--max-dead", type=click.IntRange(0), help="how many dead letters --check allows [default: 0]")
@passes_options
def command(
    options: Options, watch: bool, as_json: bool, check: bool, max_age: float | None, max_dead: int | None
) -> int:
    """Do messages flow, why not, and since when: connection, network, outbox, circuits, features, last errors.

    Exit code 0 if realtime is connected; else 69, or 77 for a token and 78 for settings.
    """
    if watch and check:
        raise click.UsageError("--check looks once: leave out --watch")
    if check:
        return _check(
            options, MAX_AGE if max_age is None else max_age, MAX_DEAD if max_dead is None else max_dead, as_json
        )
    if max_age is not None or max_dead is not None:
        raise click.UsageError("--max-age and --max-dead go with --check")
    from ..status import watch as watching

    return watching.watch(options, as_json=as_json) if watch else watching.once(options, as_json=as_json)


def _check(options: Options, max_age: float, max_dead: int, as_json: bool) -> int:
    limits: dict[str, Any] = {"max_age": max_age, "max_dead": max_dead}
    from ..status.facts import stats_of

    stats, error = None, ""
    with options.client() as chat:  # settings that make no sense are no answer: 78, as everywhere
        try:
            stats = stats_of(chat)
        except ChatError as failed:
            error = failed.message
    if stats is None:
        facts: dict[str, Any] = {"ok": False, "why": f"the outbox can't be read: {error}", **limits}
    else:
        age = None if stats.oldest is None else max(0.0, time.time() - stats.oldest)
        wrong = []
        if age is not None and age > max_age:
            wrong.append(f"the oldest message waits for {age:.0f} s (allowed: {max_age:g} s)")
        if stats.dead > max_dead:
            wrong.append(f"too many dead letters (allowed: {max_dead})")
        waits = "" if age is None else f", the oldest for {age:.0f} s"
        facts = {
            "ok": not wrong,
            "why": "; ".join([*wrong, f"{stats.pending} queued{waits}, {stats.dead} dead"]),
            "queued": stats.pending,
            "dead": stats.dead,
            "oldest_age": age,
            **limits,
        }
    if as_json:
        output.as_json(facts)
    else:
        output.line(f"{'ok' if facts['ok'] else 'FAILED'}: {output.plain(facts['why'])}")
    return exits.OK if facts["ok"] else exits.FAILED
