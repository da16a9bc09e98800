"""Rate limits: token buckets with the figures of the contract (section 3).

Rules: a bucket holds `burst` tokens and gets `per_minute` back in a minute; every request to a limited route takes one
before its body is looked at, so refused bodies and duplicates cost too. Off unless the settings say otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from chatsdk.devserver.answers import Answer, ApiError

_HAIR = 1e-6


@dataclass(frozen=True)
class Policy:
    """One limit: a name, tokens back per minute, tokens at most, and whether each channel has its own bucket."""

    name: str
    per_minute: int
    burst: int
    by_channel: bool = False


CONNECT = Policy("connect", 60, 60)
REFRESH = Policy("refresh", 60, 60)
VALIDATE = Policy("validate", 120, 60)
SUBSCRIPTION_TOKEN = Policy("subscription-token", 60, 60)
CHANNEL_READ = Policy("channel-read", 240, 120, by_channel=True)
CHANNEL_MUTATION = Policy("channel-mutation", 60, 30, by_channel=True)
SEND = Policy("send", 30, 20, by_channel=True)
HISTORY = Policy("history", 180, 90, by_channel=True)
MESSAGE_MUTATION = Policy("message-mutation", 60, 40, by_channel=True)
REACTION = Policy("reaction", 90, 45, by_channel=True)
TYPING = Policy("typing", 180, 60, by_channel=True)
SEARCH = Policy("search", 90, 45, by_channel=True)


@dataclass
class _Bucket:
    tokens: float
    at: float


@dataclass
class RateLimiter:
    """The buckets. They live in memory: after a restart all are full."""

    buckets: dict[tuple[str, ...], _Bucket] = field(default_factory=dict)

    def take(self, policy: Policy, key: tuple[str, ...], now: float) -> dict[str, str]:
        """Takes a token and returns the headers that say what is left; raises 429 with Retry-After where none is."""
        rate = policy.per_minute / 60
        bucket = self.buckets.setdefault((policy.name, *key), _Bucket(policy.burst, now))
        bucket.tokens = min(policy.burst, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        # Sums of fractions fall a hair short of whole tokens; who waited as long as told must not be refused for that.
        granted = bucket.tokens >= 1 - _HAIR
        if granted:
            bucket.tokens = max(0.0, bucket.tokens - 1)
        headers = {
            "x-ratelimit-limit": str(policy.burst),
            "x-ratelimit-remaining": str(int(bucket.tokens)),
            "x-ratelimit-reset": str(math.ceil((policy.burst - bucket.tokens) / rate)),
        }
        if granted:
            return headers
        wait = math.ceil((1 - bucket.tokens) / rate)
        body = {"error": {"code": "RATE_LIMITED", "message": "Rate limit exceeded", "retryAfter": wait}}
        raise ApiError(Answer(429, body, {**headers, "retry-after": str(wait)}))
