"""Asking a web server on a unix socket, so that no test needs a port that is free."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


def ask(path: Path, **query: Any) -> dict[str, Any]:
    """One request; what the application answered. Raises OSError while nobody listens."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(15)
        sock.connect(str(path))
        sock.sendall(f"GET /?{urlencode(query)} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], answer.decode()
    return json.loads(body)  # type: ignore[no-any-return]


def listens(path: Path) -> bool:
    """The server is up."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
    except OSError:
        return False
    return True


def ask_all(path: Path, channel: str, workers: int, limit: float = 15.0) -> tuple[list[dict[str, Any]], list[str]]:
    """Ask in parallel until so many workers have answered: every answer, and every text that was sent."""
    answers: list[dict[str, Any]] = []
    texts: list[str] = []
    ends = time.monotonic() + limit
    while len({each["pid"] for each in answers}) < workers:
        assert time.monotonic() < ends, f"only {len({each['pid'] for each in answers})} workers answer"
        batch = [f"asked {len(texts) + n}" for n in range(workers)]
        threads = [
            threading.Thread(target=lambda text=text: answers.append(ask(path, channel=channel, text=text, wait=10)))
            for text in batch
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        texts += batch
        assert len(answers) == len(texts), "a request failed"
    return answers, texts
