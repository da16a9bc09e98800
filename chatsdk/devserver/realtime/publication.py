"""One publication, and its text in each protocol, made once however many clients hear it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # `dumps` makes one for every call


@dataclass(slots=True, eq=False)
class Publication:
    """What a stream's subscribers hear. `offset` 0: the stream keeps no history. `body`: the JSON text of the
    publication without offset and epoch. `skip`: a session that does not hear it."""

    stream: str
    data: Any
    body: str
    offset: int = 0
    epoch: str = ""
    skip: object = None
    _texts: dict[Callable[[Publication], bytes | None], bytes | None] = field(default_factory=dict)

    def text(self, encode: Callable[[Publication], bytes | None]) -> bytes | None:
        """What `encode` makes of it; asked once."""
        try:
            return self._texts[encode]
        except KeyError:
            made = self._texts[encode] = encode(self)
            return made


def compact(value: Any) -> str:
    """JSON without blanks. Surrogates that stand alone are escaped, as they cannot go out as UTF-8."""
    text = _encode(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return json.dumps(value, separators=(",", ":"))
    return text


def publication_body(data: Any, info: Any = None, tags: Any = None) -> str:
    """The JSON of a publication without offset and epoch."""
    fields = {"data": data}
    if info is not None:
        fields["info"] = info
    if tags:
        fields["tags"] = tags
    return compact(fields)


def placed(body: str, offset: int, epoch: str) -> str:
    """The body with its position; the epoch is told on the first offset only, as the real server does."""
    if not offset:
        return body
    first = f',"epoch":{compact(epoch)}' if offset == 1 else ""
    return f'{body[:-1]},"offset":{offset}{first}}}'
