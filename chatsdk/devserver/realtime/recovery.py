"""What a subscriber is told of a stream's past: positions, recovered publications, pages of history.

Rules (as Centrifugo, seen at the real server):
* A position is given only to those who ask for recovery and may have it; `recover` alone is answered with
  `was_recovering` and nothing else.
* Recovered is who gets every publication after the offset that they gave: the kept history reaches back to it, and the
  epoch fits (an empty one always does). Then `offset` is theirs, else the stream's newest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chatsdk.devserver.realtime.namespaces import Namespace
from chatsdk.devserver.realtime.publication import placed

if TYPE_CHECKING:
    from chatsdk.devserver.realtime.hub import Hub, Presence


class Unrecoverable(Exception):
    """History was asked for from a position that is of another epoch."""


def subscribe_result(
    hub: Hub, stream: str, namespace: Namespace, wish: Mapping[str, Any], *, by_server: bool = False
) -> dict[str, Any]:
    """The part of a subscribe reply that is about the past. `wish`: recoverable, recover, offset, epoch."""
    asked = wish.get("recover") is True
    told: dict[str, Any] = {"was_recovering": True} if asked else {}
    wanted = namespace.force_recovery or (wish.get("recoverable") is True and not by_server)
    if not (namespace.recovery and wanted):
        return told
    last, epoch = hub.position(stream)
    told.update(recoverable=True, positioned=True, epoch=epoch)
    offset = last
    if asked:
        since, known_epoch = _number(wish.get("offset")), str(wish.get("epoch") or "")
        missed = [each for each in hub.kept(stream, namespace) if each[0] > since]
        if _is_recovered(missed, since, last) and known_epoch in ("", epoch):
            offset = since
            told["recovered"] = True
            if missed:
                told["publications"] = publications(missed, epoch)
    if offset:
        told["offset"] = offset
    return told


def _is_recovered(missed: Sequence[tuple[int, str]], since: int, last: int) -> bool:
    if not missed:
        return since == last
    return missed[0][0] == since + 1 and missed[-1][0] == last


def history_result(hub: Hub, stream: str, namespace: Namespace, wish: Mapping[str, Any]) -> dict[str, Any]:
    """A page of history. `wish`: limit (0: the position only, negative: all), reverse, since {offset, epoch}. Raises
    `Unrecoverable`."""
    last, epoch = hub.position(stream)
    limit, reverse, since = _number(wish.get("limit"), -1), wish.get("reverse") is True, wish.get("since")
    kept = hub.kept(stream, namespace) if limit else []
    if isinstance(since, Mapping):
        if since.get("epoch") not in (None, "", epoch):
            raise Unrecoverable
        start = _number(since.get("offset"))
        kept = [each for each in kept if (each[0] < start if reverse else each[0] > start)]
    if reverse:
        kept = kept[::-1]
    if limit > 0:
        kept = kept[:limit]
    page: dict[str, Any] = {"publications": publications(kept, epoch)} if kept else {}
    page["epoch"] = epoch
    if last:
        page["offset"] = last
    return page


def publications(kept: Sequence[tuple[int, str]], epoch: str) -> list[Any]:
    """Kept publications as replies show them."""
    return [json.loads(placed(body, offset, epoch)) for offset, body in kept]


def presence_stats(present: Sequence[Presence]) -> dict[str, Any]:
    counts = {"num_clients": len(present), "num_users": len({each.user for each in present})}
    return {name: count for name, count in counts.items() if count}


def _number(value: Any, least: int = 0) -> int:
    return max(least, value) if isinstance(value, int) and not isinstance(value, bool) else 0
