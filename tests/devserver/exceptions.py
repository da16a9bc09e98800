"""Where the development server is not to answer as the real one did: each step, the reason, and what is expected."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Differs:
    """How a step differs. `status`: this one is expected instead, with a proper body; `statuses`: the same for steps
    sent at once; `paths`: only these places of the body differ; none of the three: the step is not sent at all."""

    reason: str
    status: int | None = None
    statuses: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def skipped(self) -> bool:
        return self.status is None and not self.statuses and not self.paths


_MISTAKE = "the original answers 500 to a caller's mistake (contract, section 2)"
_KEY = "the original answers 500 to a key it cannot take (fact 3, 15.25)"
_NUL = "the original's database cannot store U+0000 (15.24)"
_RACE = "the original answers 500 to racing repeats (fact 3, 15.7, 15.34)"
_UNSUPPORTED = "not an operation of this server"
_CHECKS = "other parts, other checks"
_BUSY = "needs a database that is busy; the fault `unauthorized` stands for it (15.1)"

BAD_REQUEST = Differs(_MISTAKE, status=400)
NOT_FOUND = Differs(_MISTAKE, status=404)
BAD_KEY = Differs(_KEY, status=400)
NUL = Differs(_NUL, status=400)
UNSUPPORTED = Differs(_UNSUPPORTED)
HAS_MORE = Differs("the original's hasMore is wrong in this mode or beside replies (fact 8, 15.27)", paths=("hasMore",))
REACTIONS = Differs("the original's reactionCount is always 0 (15.29)", paths=("reactionCount",))
JOINED = Differs("the original does not count members who joined by sending (15.16)", paths=("memberCount",))
DOCS = Differs("this server has no documentation site", paths=("error.docsUrl",))
PARALLEL_KEYS = Differs(_RACE, statuses=(200, 200, 200, 200, 201))
SECOND = Differs("no refresh is ever in the middle here: the loser finds the token used up", paths=("error.message",))
COUNTED_TWICE = Differs("the original counts a member named twice, or oneself, twice (15.33)", paths=("memberCount",))
EMPTY_KEY = Differs("the original takes the empty key for a key (15.33); here it is none", status=201)
DEVELOPMENT = Differs("this is a development server: tokens are handed out", status=200)
OTHER_APP = Differs("there is one app here: the token of another is refused", status=401)

OWN_COLON = Differs("the original splits a user's id at its colon and refuses them their own stream", status=200)

EXCEPTIONS: dict[tuple[str, int | None], Differs] = {
    ("ready-503", 0): Differs("this server has no search engine that could be down", status=200),
    ("ready-503", 1): UNSUPPORTED,
    ("prod-health", 1): Differs(_CHECKS, paths=("checks",)),
    ("prod-health", 2): UNSUPPORTED,
    ("subscription-token", 6): BAD_REQUEST,
    ("subscription-token", 19): OWN_COLON,
    ("dev-connect", 9): BAD_REQUEST,
    ("connect-api-key", 1): DOCS,
    ("connect-api-key", 2): DOCS,
    ("connect-api-key", 3): BAD_REQUEST,
    ("no-scopes-token", 4): UNSUPPORTED,
    ("no-scopes-token", 7): UNSUPPORTED,
    ("no-scopes-token", 8): UNSUPPORTED,
    ("no-scopes-token", 18): UNSUPPORTED,
    ("refresh", 1): Differs("this server takes the refresh token in the body as well, and would rotate it here"),
    ("refresh-parallel", 1): SECOND,
    ("refresh-parallel", 5): SECOND,
    ("refresh-parallel", 9): SECOND,
    ("channel-create-dm-edge", 0): COUNTED_TWICE,
    ("channel-create-dm-race", 0): Differs(_RACE, statuses=(201, 303, 303, 303), paths=("createdBy",)),
    ("channel-create-idempotency", 7): Differs("an empty key is none here, and not shown", paths=("idempotencyKey",)),
    ("channel-create-idempotency", 8): EMPTY_KEY,
    ("channel-create-errors", 1): NOT_FOUND,
    ("channel-create-errors", 6): BAD_REQUEST,
    ("channel-create-errors", 10): COUNTED_TWICE,
    ("channel-types", 6): JOINED,
    ("channel-types", 13): JOINED,
    ("channel-list", 5): BAD_REQUEST,
    ("channel-list", 8): BAD_REQUEST,
    ("channel-list", 11): BAD_REQUEST,
    ("channel-get-errors", 1): BAD_REQUEST,
    ("channel-get-errors", 5): BAD_REQUEST,
    ("channel-members", 2): NOT_FOUND,
    ("read-and-unread", 14): Differs("the original's receipts always fail (contract, section 8)", status=200),
    ("read-and-unread", 15): Differs("the receipt of the step before was taken here", paths=("receipts",)),
    ("presence", 4): UNSUPPORTED,
    ("users", 6): Differs("the original shows its presence flag in custom (section 10)", paths=("users[].custom",)),
    ("users", 8): BAD_REQUEST,
    ("users", 9): BAD_REQUEST,
    ("send-parent-reply", 4): HAS_MORE,
    ("send-parent-reply", 5): NOT_FOUND,
    ("send-parent-reply", 6): NOT_FOUND,
    ("send-parent-reply", 13): HAS_MORE,
    ("clientmsgid-parallel", 0): PARALLEL_KEYS,
    ("clientmsgid-parallel", 4): PARALLEL_KEYS,
    ("clientmsgid-parallel", 8): PARALLEL_KEYS,
    ("clientmsgid-other-channel", 1): Differs(_KEY, status=409),
    ("clientmsgid-other-channel", 2): Differs(_KEY, status=409),
    ("clientmsgid-forms", 0): BAD_KEY,
    ("clientmsgid-forms", 8): BAD_KEY,
    ("clientmsgid-forms", 9): BAD_KEY,
    ("send-text-limits", 11): NUL,
    ("send-text-limits", 12): NUL,
    ("send-denied", 1): BAD_REQUEST,
    ("list-messages", 2): HAS_MORE,
    ("list-messages", 5): HAS_MORE,
    ("list-messages", 6): HAS_MORE,
    ("list-messages", 10): HAS_MORE,
    ("list-messages", 13): HAS_MORE,
    ("list-messages", 19): BAD_REQUEST,
    ("list-messages", 20): Differs("the original answers in descending order (15.27)", paths=("messages", "hasMore")),
    ("list-messages", 21): HAS_MORE,
    ("list-messages", 25): BAD_REQUEST,
    ("list-messages", 26): BAD_REQUEST,
    ("list-messages", 29): HAS_MORE,
    ("list-messages", 30): BAD_REQUEST,
    ("list-messages", 31): BAD_REQUEST,
    ("list-messages", 32): HAS_MORE,
    ("list-messages", 33): HAS_MORE,
    ("list-messages", 34): HAS_MORE,
    ("list-messages", 37): BAD_REQUEST,
    ("list-only-replies", 0): HAS_MORE,
    ("list-only-replies", 1): HAS_MORE,
    ("get-one", 2): BAD_REQUEST,
    ("get-one", 5): BAD_REQUEST,
    ("edit", 7): NUL,
    ("edit", 9): BAD_REQUEST,
    ("delete", 11): BAD_REQUEST,
    ("delete", 17): Differs("reactionCount and hasMore as said above", paths=("messages[].reactionCount", "hasMore")),
    ("thread", 2): Differs("the original answers 500 to a repeat on the thread route (section 7)", status=200),
    ("thread", 11): BAD_REQUEST,
    ("reactions", 4): REACTIONS,
    ("reactions", 9): REACTIONS,
    ("reactions", 17): Differs("the original decodes the emoji twice (15.31)", status=200),
    ("reactions", 20): BAD_REQUEST,
    ("reactions", 22): Differs(
        "the emoji of step 17 is gone here; the count is right here", paths=("reactions", "reactionCount")
    ),
    ("reactions", 24): NUL,
    ("search", 4): UNSUPPORTED,
    ("rate-limit-send", 24): HAS_MORE,
    ("db-pool-exhausted", None): Differs(_BUSY),
    ("send-client-timeout", 2): Differs("no first try is waiting for a lock here, so this is the first", status=201),
    ("prod-connect", 0): DEVELOPMENT,
    ("prod-connect", 1): DEVELOPMENT,
    ("prod-connect", 2): DEVELOPMENT,
    ("prod-connect", 3): UNSUPPORTED,
    ("prod-basic", 6): REACTIONS,
    ("prod-basic", 15): NOT_FOUND,
    ("prod-basic", 16): BAD_REQUEST,
    ("prod-basic", 17): NUL,
    ("prod-basic", 20): UNSUPPORTED,
    ("prod-basic", 21): PARALLEL_KEYS,
    ("prod-cross-app", 0): OTHER_APP,
    ("prod-cross-app", 1): OTHER_APP,
    ("prod-cross-app", 2): OTHER_APP,
    ("prod-cross-app", 3): OTHER_APP,
    ("prod-cross-app", 5): OTHER_APP,
    ("prod-cross-app", 6): OTHER_APP,
}


def exception_for(scenario: str, step: int) -> Differs | None:
    """The exception of one step; an entry with None stands for all steps of its scenario."""
    return EXCEPTIONS.get((scenario, step)) or EXCEPTIONS.get((scenario, None))
