"""What a check found: one line, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from .. import exits


class Verdict(Enum):
    """OK; WARN: it works, but look at it; FAIL: messages will not flow; SKIP: an earlier failure is in the way."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check`: what was looked at; `message`: what was seen; `hint`: what to do, "" for nothing."""

    check: str
    verdict: Verdict
    message: str
    hint: str = ""

    def to_dict(self) -> dict[str, str]:
        """`{"check", "verdict", "message", "hint"}`."""
        return {"check": self.check, "verdict": self.verdict.value, "message": self.message, "hint": self.hint}


def ok(check: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(check, Verdict.OK, message)


def warn(check: str, message: str, hint: str) -> Finding:
    """It works, but somebody should look at it."""
    return Finding(check, Verdict.WARN, message, hint)


def fail(check: str, message: str, hint: str) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.FAIL, message, hint)


def skip(check: str, because: str) -> Finding:
    """It could not be looked at, because the check `because` failed."""
    return Finding(check, Verdict.SKIP, f"not tried, because of: {because}")


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if anything failed; a warning is no failure."""
    return exits.FAILED if any(each.verdict is Verdict.FAIL for each in findings) else exits.OK
