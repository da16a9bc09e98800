"""The comparison of what was accepted with what the server's own log holds. Pure: facts in, verdict out.

Rules. A message is known by what its text says (run, channel, number), never by its key: a product that sent one
message under two keys would be found out. *Lost*: `send` returned, and the log does not have it. *Duplicated*: the
log has it again. *Out of order*: it stands behind one of its channel that was sent after it, counting first deliveries
only. A run that met no trouble proves nothing, so a verdict is good only if every kind of fault struck, a reply was
lost after the message was stored, and both processes were killed while messages waited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .notes import Name, Notes, read_text
from .plan import EXPECTED_FAULTS, EXPECTED_KILLS


@dataclass(frozen=True)
class Kill:
    """Who got SIGKILL, and how many messages waited in the outbox right after."""

    who: str
    pending: int


@dataclass(frozen=True)
class Evidence:
    """All that is known at the end.

    notes        the sending process's record
    messages     the server's log of stored messages, in the order of their arrival (`text`, `key`)
    attempts     the server's log of tries (`outcome`, `result`, `status`)
    faults       how often each kind of fault struck, as the server counted; a status counts under its number
    outbox       the outbox's own accounting: accepted, delivered, dead, pending, discarded
    """

    notes: Notes
    messages: Sequence[Mapping[str, Any]]
    attempts: Sequence[Mapping[str, Any]]
    faults: Mapping[str, int]
    kills: Sequence[Kill]
    outbox: Mapping[str, int]


@dataclass(frozen=True)
class Verdict:
    """What it came to. `failures`: where the promise was broken; `gaps`: what the run failed to put to the test."""

    begun: int
    accepted: int
    delivered: int
    lost: int
    duplicated: int
    out_of_order: int
    strangers: int
    attempts: int
    faults: Mapping[str, int]
    lost_replies: int
    kills: Sequence[Kill]
    outbox: Mapping[str, int]
    failures: Sequence[str] = field(default_factory=tuple)
    gaps: Sequence[str] = field(default_factory=tuple)

    @property
    def good(self) -> bool:
        """The promise held, and was really tested."""
        return not self.failures and not self.gaps

    @property
    def attempts_per_message(self) -> float:
        """Tries that reached the server for each message that it stored."""
        return self.attempts / self.delivered if self.delivered else 0.0


def judge(evidence: Evidence) -> Verdict:
    """The verdict."""
    names = [read_text(str(message["text"])) for message in evidence.messages]
    arrivals: list[Name] = [name for name in names if name is not None]
    first = list(dict.fromkeys(arrivals))
    notes = evidence.notes
    counts = {
        "lost": len(notes.accepted.keys() - set(first)),
        "duplicated": len(arrivals) - len(first),
        "out_of_order": out_of_order(first),
        "strangers": names.count(None) + len(set(first) - notes.begun),
    }
    lost_replies = sum(
        1 for attempt in evidence.attempts if attempt["outcome"] == "fault:reply_lost" and attempt["result"] == "stored"
    )
    return Verdict(
        begun=len(notes.begun),
        accepted=len(notes.accepted),
        delivered=len(first),
        attempts=len(evidence.attempts),
        faults=evidence.faults,
        lost_replies=lost_replies,
        kills=evidence.kills,
        outbox=evidence.outbox,
        failures=tuple(_failures(counts, evidence.outbox)),
        gaps=tuple(_gaps(evidence.faults, lost_replies, evidence.kills, len(notes.accepted))),
        **counts,
    )


def out_of_order(first: Sequence[Name]) -> int:
    """How many first deliveries came after a later one of their channel; a later run sends after an earlier one."""
    latest: dict[int, Name] = {}
    late = 0
    for name in first:
        if name < latest.get(name.channel, name):
            late += 1
        else:
            latest[name.channel] = name
    return late


def _failures(counts: Mapping[str, int], outbox: Mapping[str, int]) -> list[str]:
    words = {
        "lost": "{} accepted and not delivered",
        "duplicated": "{} delivered twice",
        "out_of_order": "{} out of order",
        "strangers": "{} that nobody sent",
    }
    found = [said.format(counts[name]) for name, said in words.items() if counts[name]]
    found += [f"{outbox[name]} left {name} in the outbox" for name in ("pending", "dead") if outbox[name]]
    ends = outbox["delivered"] + outbox["dead"] + outbox["pending"] + outbox["discarded"]
    if outbox["accepted"] != ends:
        found.append(f"the outbox accepted {outbox['accepted']} and accounts for {ends}")
    return found


def _gaps(faults: Mapping[str, int], lost_replies: int, kills: Sequence[Kill], accepted: int) -> list[str]:
    found = [f"the fault {kind} never struck" for kind in EXPECTED_FAULTS if not faults.get(kind)]
    if not lost_replies:
        found.append("no reply was lost after its message was stored")
    for who in EXPECTED_KILLS:
        if not any(kill.who == who and kill.pending > 0 for kill in kills):
            found.append(f"the {who} was not killed while messages waited")
    if not accepted:
        found.append("nothing was accepted")
    return found
