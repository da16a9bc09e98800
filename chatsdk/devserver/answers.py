"""Answers as values: what a handler returns, and the error shapes of the contract (section 2).

Rules: a handler returns an `Answer` or raises `ApiError`, which carries one; nothing else leaves it. There are three
shapes of refusal, told apart by who speaks: `thrown` (the framework: code by status, request id), `refused` (the
handler itself: a message, seldom a code) and `invalid` (validation: a list of issues). A caller's mistake is never
a 500.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: `body` becomes JSON (None: an empty body), `headers` are added to the usual ones."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """A refusal on its way out of a handler; `answer` is what the caller gets."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.body)
        self.answer = answer


def ok(body: Any) -> Answer:
    """200 with `body`."""
    return Answer(200, body)


SUCCESS = ok({"success": True})


def thrown(status: int, message: str, hint: str | None = None) -> ApiError:
    """The framework's shape. The request id is filled in by the dispatcher, which knows it."""
    error: dict[str, Any] = {"message": message, "code": CODES.get(status, "ERROR")}
    if hint is not None:
        error["hint"] = hint
    error["requestId"] = None
    return ApiError(Answer(status, {"error": error}))


def refused(status: int, message: str, code: str | None = None, **extra: Any) -> ApiError:
    """The handler's own shape: a message, and a code only where the original gives one."""
    error: dict[str, Any] = {"message": message, **({"code": code} if code else {}), **extra}
    return ApiError(Answer(status, {"error": error}))


def invalid(issues: Sequence[Mapping[str, Any]]) -> ApiError:
    """The validator's shape: 400 and the list of issues, without any `error.message`."""
    return ApiError(Answer(400, {"success": False, "error": {"issues": list(issues), "name": "ZodError"}}))


NOT_FOUND = Answer(404, {"error": {"message": "Not Found", "code": "NOT_FOUND"}})
INTERNAL_ERROR = Answer(
    500,
    {
        "error": {
            "message": "Internal Server Error",
            "code": "INTERNAL_ERROR",
            "hint": "The development server logged the reason.",
            "requestId": None,
        }
    },
)
