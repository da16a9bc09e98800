"""Values of settings: what is allowed, in which forms, and what each becomes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core import values
from chatsdk.core.tokens import Secret
from chatsdk.core.values import Kind

URL = values.url("http", "https")

GOOD: list[tuple[Kind, Any, Any]] = [
    (values.seconds(), 0, 0.0),
    (values.seconds(), "0", 0.0),
    (values.seconds(), "10", 10.0),
    (values.seconds(), " 0.5 ", 0.5),
    (values.seconds(), ".5s", 0.5),
    (values.seconds(), "500ms", 0.5),
    (values.seconds(), "10 S", 10.0),
    (values.seconds(), "5m", 300.0),
    (values.seconds(), "24h", 86400.0),
    (values.seconds(), "7d", 604800.0),
    (values.integer(), "7", 7),
    (values.integer(-5), "-5", -5),
    (values.size(1), "16MiB", 16 * 2**20),
    (values.size(1), "1.5 kB", 1500),
    (values.size(1), 2048, 2048),
    (values.FLAG, "Yes", True),
    (values.FLAG, "off", False),
    (values.FLAG, False, False),
    (values.choice("a", "b"), "A", "a"),
    (values.text(5), "Zoë 🙂", "Zoë 🙂"),
    (values.NAME, "alerts-2.eu_1", "alerts-2.eu_1"),
    (values.PATH, Path("/var/lib/x"), "/var/lib/x"),
    (URL, "HTTPS://Chat.Example:443/", "https://chat.example"),
    (URL, "http://127.0.0.1:5500", "http://127.0.0.1:5500"),
    (URL, "http://[::1]:80/api/", "http://[::1]/api"),
    (values.SECRET, "eyJ.x.y\n", Secret("eyJ.x.y")),
    (values.SECRET, Secret("t"), Secret("t")),
    (values.PROXY, "http://user:word@proxy:3128", Secret("http://user:word@proxy:3128")),
    (values.COMMAND, "vault 'read it' -f", ("vault", "read it", "-f")),
    (values.COMMAND, ["vault", "read"], ("vault", "read")),
]


@pytest.mark.parametrize(("kind", "given_", "value"), GOOD)
def test_what_is_allowed(kind: Kind, given_: Any, value: Any) -> None:
    """Text and native values become the value that the code uses."""
    assert kind.parse(given_) == value


ABSURD: list[tuple[Kind, list[Any]]] = [
    (values.seconds(), ["abc", "", "-1", -1, "nan", math.nan, "inf", math.inf, "1e3", True, None, [], "10x", 10**30]),
    (values.seconds(), ["١٠", 10**400, "11y", values.MAX_SECONDS + 1]),
    (values.seconds(zero=False), [0, "0", "0ms", 0.0]),
    (values.integer(1, 10), ["0", 0, 11, "1.5", 1.5, True, "", "x", "9" * 30, None]),
    (values.size(1024), ["1", 0, -1, "1TiB", "MiB", True, 1.5, "9" * 400 + "GiB"]),
    (values.FLAG, ["maybe", "", 1, 0, None]),
    (values.choice("a"), ["b", "", None, 7]),
    (values.text(5), ["", "sixsix", "a\nb", "nul\0", "\ud800", None, 7, b"x"]),
    (values.NAME, ["", ".", "..", "a/b", "-x", "x" * 65, "x\n", "x.", None]),
    (values.PATH, ["", " ", "a\0b", "a\nb", None, 7]),
    (
        URL,
        [
            "",
            "chat.example",
            "ftp://x",
            "https://",
            "https://user:pass@x",
            "https://u@x",
            "https://x:0",
            "https://x:99999",
        ],
    ),
    (URL, ["https://x?y=1", "https://x#y", "https://x\ny", "https://x y", "https://[::1", "https://x\\@y", 7, None]),
    (URL, ["https://" + "x" * 3000, "https:///path", "//x", "javascript:alert(1)"]),
    (values.SECRET, ["", " ", "two words", "line\nbreak", "ü", None, 7]),
    (values.PROXY, ["proxy:3128", "socks5://x", "", "http://x:0", None]),
    (values.COMMAND, ["", "'open", [], [7], [""], ["a\0"], None, 7]),
]


@pytest.mark.parametrize(("kind", "wrong"), [(kind, wrong) for kind, many in ABSURD for wrong in many])
def test_what_is_not_allowed(kind: Kind, wrong: Any) -> None:
    """Everything else is a ValueError."""
    with pytest.raises(ValueError):
        kind.parse(wrong)


KINDS = [kind for kind, _, _ in GOOD] + [kind for kind, _ in ABSURD]
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text())


@given(kind=st.sampled_from(KINDS), value=ANYTHING)
def test_parsers_raise_nothing_but_value_errors(kind: Kind, value: Any) -> None:
    """Whatever is given is parsed or refused, and a parsed value is parsed to itself."""
    try:
        parsed = kind.parse(value)
    except ValueError:
        return
    assert kind.parse(parsed) == parsed
    kind.show(parsed)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (values.seconds(), 86400.0, "1 d"),
        (values.seconds(), 5400.0, "90 min"),
        (values.seconds(), 0.1, "0.1 s"),
        (values.seconds(), 0.0, "0 s"),
        (values.size(1), 2**30, "1 GiB"),
        (values.size(1), 1000, "1000 B"),
        (values.FLAG, True, "true"),
        (values.optional(values.seconds()), None, ""),
    ],
)
def test_values_are_shown_with_their_units(kind: Kind, value: Any, shown: str) -> None:
    """What people read names the unit."""
    assert kind.show(value) == shown
