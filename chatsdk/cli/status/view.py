"""From facts to lines. Pure: what `facts.look` saw, and what the terminal is like.

listing      every line, for `chatsdk status` without a terminal or without --watch
change       one line, for --watch without a terminal
fitted       the picture of a terminal: no line is longer or wraps, and where something had to go a sign says so
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ...core.plain_text import plain
from ...network.estimate import LEAST_ANSWERS
from . import words
from .facts import Facts

LABEL = 13
"""Columns of the labels."""

FOLDS = 3
"""Lines that one text may take."""

GOOD, FAIR, BAD, DIM, PLAIN = "green", "yellow", "red", "dim", ""


class Signs(NamedTuple):
    """What a terminal can show."""

    cut: str
    quality: dict[str, str]


UNICODE = Signs("…", {})
ASCII = Signs("...", {"EXCELLENT": "***", "GOOD": "**-", "FAIR": "*--", "POOR": "---", "OFFLINE": "x"})
"""For terminals that do not take UTF-8."""


class Line(NamedTuple):
    """A line without its label, and its colour."""

    text: str
    style: str = PLAIN


class Block(NamedTuple):
    """A label and its lines. `items`: things of the same kind, worst first, of which some may be left out."""

    label: str
    lines: Sequence[Line]
    items: Sequence[Line] = ()


class Drawn(NamedTuple):
    """A line of a picture: its label (or blanks), and the rest of it with its colour."""

    label: str
    text: str
    style: str


class Terminal(NamedTuple):
    """What is drawn on. measure: the columns that a text takes; show: the text as its encoding can take it."""

    width: int
    height: int
    signs: Signs = UNICODE
    measure: Callable[[str], int] = len
    show: Callable[[str], str] = str


def blocks(facts: Facts, signs: Signs = UNICODE) -> list[Block]:
    """All that there is to say: whether messages flow, then what stops them."""
    return [
        _outbox(facts),
        _connection(facts["connection"]),
        _network(facts["network"], signs),
        Block("lanes", (), [_lane(lane, facts["user"]) for lane in facts["lanes"]]),
        _circuits(facts["circuits"]),
        _features(facts["features"]),
        _health(facts),
        _errors(facts),
    ]


def title(facts: Facts) -> str:
    """Who looks at what."""
    return plain(f"{facts['server']} as {facts['user'] or 'nobody'}")


def listing(facts: Facts, signs: Signs = UNICODE) -> list[str]:
    """Every line."""
    shown = [f"{'server':<{LABEL}}{title(facts)}"]
    for block in blocks(facts, signs):
        shown += _labelled(block.label, [line.text for line in (*block.lines, *block.items)])
    return shown


def change(facts: Facts, signs: Signs = UNICODE) -> str:
    """One line of everything, with the time in front."""
    said = [
        f"{block.label} " + ", ".join(line.text for line in (*block.lines, *block.items[:1]))
        for block in blocks(facts, signs)
        if block.lines or block.items
    ]
    return f"{_clock(facts)} " + "; ".join(said)


def fitted(facts: Facts, on: Terminal) -> list[Drawn]:
    """At most `on.height` lines of at most `on.width` columns."""
    clock = _clock(facts)
    head = cut(on.show(title(facts)), on.width - len(clock) - 2, on)
    head = cut(head + " " * (on.width - on.measure(head) - len(clock)) + clock, on.width, on)
    every = blocks(facts, on.signs)
    full = {block.label: len(block.items) for block in every}
    room = on.height - 1
    # the first that has room: lists lose lines before facts do, and the worst three stay as long as they can
    for folds, item_folds, least in ((FOLDS, 2, None), (FOLDS, 1, 3), (2, 1, 3), (1, 1, 3), (1, 1, 1)):
        quotas = dict(full)
        drawn = _drawn(every, quotas, folds, item_folds, on)
        while len(drawn) > room and least is not None and max(quotas.values()) > least:
            quotas[max(quotas, key=quotas.__getitem__)] -= 1
            drawn = _drawn(every, quotas, folds, item_folds, on)
        if len(drawn) <= room:
            break
    if len(drawn) > room:
        left_out = words.number(len(drawn) - room + 1, "more line")
        drawn[max(0, room - 1) :] = [Drawn("", cut(f"{on.signs.cut} {left_out}", on.width, on), DIM)]
    return [Drawn("", head, "bold"), *drawn][: on.height]


def cut(text: str, width: int, on: Terminal) -> str:
    """The text, of at most `width` columns; one that was cut ends in the sign that says so."""
    if on.measure(text) <= width:
        return text
    room = max(0, width - len(on.signs.cut))
    while text and on.measure(text) > room:
        text = text[: max(0, min(len(text) - 1, room))]
    return (text.rstrip() + on.signs.cut)[: max(0, width)]


def fold(text: str, width: int, most: int, on: Terminal) -> list[str]:
    """The text as at most `most` lines of at most `width` columns, broken between words."""
    lines: list[str] = []
    sign = len(on.signs.cut)
    while on.measure(text) > width and len(lines) < most - 1:
        head = cut(text, width + sign, on)[:-sign]
        space = len(head) if text[len(head) :].startswith(" ") else head.rfind(" ")
        if space <= width // 2:  # one long word; an address, mostly
            space = len(head)
        lines.append(text[:space])
        text = text[space:].lstrip()
    return [*lines, cut(text, width, on)]


def _drawn(every: Iterable[Block], quotas: dict[str, int], folds: int, item_folds: int, on: Terminal) -> list[Drawn]:
    found: list[Drawn] = []
    indent = LABEL if on.width >= 2 * LABEL else 0  # narrower than that nothing can be told well
    width = max(1, on.width - indent)
    for block in every:
        lines = [(part, line.style) for line in block.lines for part in fold(on.show(line.text), width, folds, on)]
        shown = list(block.items[: quotas[block.label]])
        if len(shown) < len(block.items):  # said in the last one's place, so that it costs no line
            more = len(block.items) - len(shown) + 1
            shown[-1] = Line(f"{on.signs.cut} and {more} more" if len(shown) > 1 else f"{more}", DIM)
        for item in shown:
            first, *rest = fold(on.show(item.text), width, item_folds, on)
            lines += [(first, item.style), *((cut(f"  {part}", width, on), item.style) for part in rest)]
        for count, (text, style) in enumerate(lines):
            label = "" if count else block.label
            found.append(Drawn(f"{label:<{indent}}" if indent else "", text, style))
    return found


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    labels = [label] + [""] * len(lines)
    return [f"{label:<{LABEL}}{line}" for label, line in zip(labels, lines, strict=False)]


def _clock(facts: Facts) -> str:
    return time.strftime("%H:%M:%S", time.localtime(facts["at"]))


# ---- the blocks


def _health(facts: Facts) -> Block:
    """Of the client that looks: what another process met is in the outbox."""
    health = facts["health"]
    style = {"healthy": GOOD, "degraded": FAIR}.get(health["status"], BAD)
    reasons = "; ".join(health["reasons"])
    return Block("this client", [Line(plain(f"{health['status']}: {reasons}" if reasons else health["status"]), style)])


def _connection(connection: Facts) -> Block:
    text, since = connection["text"], connection["since"]
    if not connection["connected"] and since is not None:
        text += f", down for {words.duration(since)}"
    if connection["reconnects"]:
        text += f", {words.number(connection['reconnects'], 'reconnect')}"
    style = GOOD if connection["connected"] else BAD if connection["error"] else FAIR
    lines = [Line(plain(text), style)]
    error = connection["error"]
    if error and not connection["connected"]:
        if error["message"] not in text:
            lines.append(Line(plain(error["message"])))
        if error["hint"] and connection["state"] == "FAILED":  # else it tries again by itself
            lines.append(Line(plain(f"-> {error['hint']}"), DIM))
    return Block("connection", lines)


def _network(network: Facts, signs: Signs) -> Block:
    if network["quality"] == "unknown":
        tries = (
            f"{words.number(network['samples'], 'try', 'tries')}, no answer yet" if network["samples"] else "not tried"
        )
        reason = f": {network['reason_text']}" if network["reason_text"] else ""
        return Block("network", [Line(f"unknown ({tries}){reason}")])
    symbol = signs.quality.get(network["quality"], network["symbol"])
    style = {"EXCELLENT": GOOD, "GOOD": GOOD, "FAIR": FAIR}.get(network["quality"], BAD)
    reason = f": {network['reason_text']}" if network["reason_text"] else ""
    few = network["quality"] != "OFFLINE" and network["samples"] < LEAST_ANSWERS  # then it is a guess
    lasted = "so far" if few else f"for {words.duration(network['quality_age'])}"
    said = [Line(f"{symbol} {network['label']} {lasted}{reason}", style)]
    if network["loss"] is None:
        loss = "loss unknown"
    else:
        lost = words.share(network["loss"]) if network["loss"] else "none"
        loss = f"{lost} of {words.number(network['samples'], 'try', 'tries')} lost"
    age = network["contact_age"]
    heard = "never heard" if age is None else f"heard {words.duration(age)} ago"
    slow = network["latency_p95_ms"]
    slowest = "" if slow is None else f" (95 %: {words.milliseconds(slow)})"
    said.append(Line(f"latency {words.milliseconds(network['latency_ms'])}{slowest}, {loss}, {heard}"))
    return Block("network", said)


def _outbox(facts: Facts) -> Block:
    outbox = facts["outbox"]
    if outbox["error"]:
        return Block("outbox", [Line(plain(f"cannot be read: {outbox['error']}"), BAD)])
    queued, dead = outbox["queued"], outbox["dead"]
    lanes = f" ({words.number(outbox['lanes'], 'lane')})" if outbox["lanes"] else ""
    lines = [Line(f"{queued} queued, {dead} dead{lanes}", BAD if dead else FAIR if queued else GOOD)]
    if outbox["oldest_age"] is not None:
        age, reason = words.duration(outbox["oldest_age"]), outbox["why"] or "unknown"
        lines.append(Line(f"the oldest waits for {age}: {reason}"))
        coming = words.next_try(outbox)
        if coming:
            lines.append(Line(coming))
    return Block("outbox", lines)


def _lane(lane: Facts, own: str) -> Line:
    """The channel comes last: an id is what can best be cut."""
    waiting = f"{lane['waiting']}{' or more' if lane['more'] else ''} waiting"
    failed = f", failed {words.number(lane['failures'], 'time')}" if lane["failures"] else ""
    coming = "being sent now" if lane["sending"] else f"next try {words.until(lane['next_in'])}"
    reason = f" ({words.briefly(lane['reason'])})" if lane["reason"] else ""
    user = "" if lane["user"] == own else f" of {lane['user']}"
    text = f"{waiting}{failed}, {coming}{reason}: {lane['alias'] or lane['channel']}{user}"
    return Line(plain(text), FAIR if lane["failures"] else PLAIN)


def _circuits(circuits: Facts) -> Block:
    items = []
    for name, each in circuits.items():
        if each["state"] == "closed":
            continue
        coming = f", tries again {words.until(each['retry_in'] or 0.0)}"
        opened = f" (opened {words.number(each['opened'], 'time')})"
        items.append(Line(plain(f"{name} is {each['state'].replace('_', ' ')}{coming}{opened}"), BAD))
    return Block("circuits", () if items else [Line("all closed", GOOD)], items)


def _features(features: Facts) -> Block:
    if features["level"] == "none" and not features["off"]:
        return Block("features", [Line("all work", GOOD)])
    off = ", ".join(f"{name} ({reason})" for name, reason in features["off"].items())
    reasons = ", ".join(features["reasons"])
    style = FAIR if features["level"] in ("none", "minor", "moderate") else BAD
    lines = [Line(plain(f"{features['level']} degradation" + (f": {reasons}" if reasons else "")), style)]
    if off:
        lines.append(Line(plain(f"off: {off}")))
    return Block("features", lines)


def _errors(facts: Facts) -> Block:
    """The first one of each place, then the second ones: what is left out should not be all of a place."""
    ranks: Counter[str] = Counter()
    ranked = []
    for each in facts["errors"]:
        style = PLAIN if each["where"] == "here" else FAIR
        line = Line(f"{each['where']}: {words.error(each, facts['at'])}", style)
        ranked.append((ranks[each["where"]], line))
        ranks[each["where"]] += 1
    items = [line for _, line in sorted(ranked, key=lambda entry: entry[0])]
    return Block("errors", () if items else [Line("none", GOOD)], items)


def columns(text: str) -> int:
    """The columns that a text takes on a terminal, as rich counts them."""
    from rich.cells import cell_len

    return cell_len(text)


def signs_of(encoding: str) -> Signs:
    """What a terminal of that encoding can show."""
    return UNICODE if encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig") else ASCII
