"""`chatsdk demo`: watch messages survive. No account, no network, under 20 seconds."""

from __future__ import annotations

import click

from .. import exits
from ..demo.plan import MAX_MESSAGES, MESSAGES, MIN_MESSAGES
from .serve import missing_extra


@click.command("demo")
@click.option(
    "--messages",
    type=click.IntRange(MIN_MESSAGES, MAX_MESSAGES),
    default=MESSAGES,
    show_default=True,
    help="how many to send",
)
@click.option("--seed", type=int, help="for the dice of the faults (default: chosen, and printed)")
@click.option("--keep", is_flag=True, help="keep the files of the run, and say where they are")
@click.option(
    "--break-idempotency",
    "fresh_keys",
    is_flag=True,
    help="the control: send each try under a key of its own, which must be found out",
)
def command(messages: int, seed: int | None, keep: bool, fresh_keys: bool) -> int:
    """Send messages through dropped connections, lost replies, 503 and 429, and SIGKILLs of the server and of the
    sending process; then compare what was accepted with the server's own log.

    Exits 0 only if nothing was lost, duplicated or out of order, and every kind of trouble was really met.
    """
    from importlib.util import find_spec

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise missing_extra("demo")
    from ..demo.run import run_demo

    good = run_demo(messages=messages, seed=seed, keep=keep, fresh_keys=fresh_keys)
    return exits.OK if good else exits.FAILED
