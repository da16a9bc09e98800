"""Reads README.md: its fenced blocks, and the comment before each that says what a test does with it.

A comment stands alone on the line before the fence:

    <!-- map -->                          the map of the tree: lines of `path  description`
    <!-- test: shell -->                  run it with `bash -e`
    <!-- test: python -->                 run it as a script
    <!-- test: file NAME -->              write it to NAME, for the blocks after it
    <!-- test: skip because REASON -->    do nothing

`interrupted` after `shell` or `python` is for what runs until it is stopped (a bot, a server): it must keep running,
and end cleanly on Ctrl-C. Without a comment the language of the fence decides: `sh` and `bash` are shell, `python` is
python; a block of any other language must have one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*?) -->\n+)?^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_KIND_OF = {"sh": "shell", "bash": "shell", "python": "python"}


@dataclass(frozen=True)
class Block:
    """One fenced block. `kind`: map, shell, python, file, skip, or unknown; `argument`: the rest of the comment."""

    line: int
    kind: str
    argument: str
    code: str


def parse(text: str) -> list[Block]:
    """Give the blocks of a Markdown text, in order."""
    blocks = []
    for match in _BLOCK.finditer(text):
        words = (match["comment"] or "").split(maxsplit=2)
        if words == ["map"]:
            kind, argument = "map", ""
        elif words[:1] == ["test:"] and len(words) > 1:
            kind, argument = words[1], words[2] if len(words) > 2 else ""
        else:
            kind, argument = _KIND_OF.get(match["language"], "unknown"), ""
        blocks.append(Block(text.count("\n", 0, match.start("fence")) + 1, kind, argument, match["code"]))
    return blocks


def blocks() -> list[Block]:
    """Give the blocks of README.md; none where it is missing, which a test of its own reports."""
    return parse(README.read_text(encoding="utf-8")) if README.exists() else []
