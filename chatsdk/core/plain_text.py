"""Text that somebody else chose, made fit to be shown: a server's message, a channel's name, a plugin's error.

Whoever writes it must not command our terminal, break our line, or fill our log. So control characters are shown as
\\x1b, and what is too long ends in a sign that says so.
"""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with its control characters shown as \\x1b, so that it stays on its line and commands no terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def excerpt(text: str, longest: int) -> str:
    """The same, of at most `longest` characters; one that was cut ends in "..."."""
    shown = plain(text[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."
