"""Doing something at each of many points, as many at a time as there are templates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from tests.chaos.template import Template


def side_by_side(templates: list[Template], work: Callable[[Template, int], None], numbers: Iterable[int]) -> None:
    """Do `work` for each number."""
    free: SimpleQueue[Template] = SimpleQueue()
    for template in templates:
        free.put(template)

    def one(number: int) -> None:
        template = free.get()
        try:
            work(template, number)
        finally:
            free.put(template)

    with ThreadPoolExecutor(len(templates)) as pool:
        for _ in pool.map(one, numbers):
            pass
