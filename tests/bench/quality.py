"""How often the network's quality is named right, on simulated links; and what a sample costs.

Each link has a latency in the middle of a band, scattered as round trips are (log-normal), and loses a share of the
tries. A link that loses 20 % or 50 % is POOR, whatever its latency; one on which nobody answers is OFFLINE. Each
reading after 30 samples counts, up to 90. Losses below 5 % cannot be told apart before some 1,000 samples: after 30,
what is asked is only that the levels left open hold the right one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from random import Random

from chatsdk.network.estimate import Estimate
from chatsdk.network.monitor import NetworkMonitor
from chatsdk.network.quality import Quality

from .report import Row, alternate, goal, measured

BENCH = "quality"
FIRST, LAST = 30, 90
SEEDS = 100
"""Runs of each link in a round, each with a seed of its own."""

SCATTER = 0.25
MIDDLES = {25.0: Quality.EXCELLENT, 100.0: Quality.GOOD, 225.0: Quality.FAIR, 650.0: Quality.POOR}
"""Milliseconds: the middles of the bands (seed 001 has POOR end at a second)."""

LOSSES = (0.0, 0.2, 0.5, 1.0)
FINE = {0.015: Quality.GOOD, 0.035: Quality.FAIR}
"""Losses within the bands of a per cent or three, at 25 ms."""

SAMPLES = 5000


def run(rounds: int = 9, *, seeds: int = SEEDS, samples: int = SAMPLES) -> Iterator[Row]:
    """Measure; some ten seconds with nine rounds."""
    links = {_named(ms, lost): (ms, lost, _truth(ms, lost)) for ms in MIDDLES for lost in LOSSES}
    after = {
        name: [_accuracy(*link, number, seeds, FIRST, LAST) for number in range(rounds)] for name, link in links.items()
    }
    yield from measured(BENCH, f"readings right, samples {FIRST} to {LAST}", after, "%")
    at = {
        name: [_accuracy(*link, number, seeds, FIRST, FIRST) for number in range(rounds)]
        for name, link in links.items()
    }
    for lost, truth in FINE.items():
        few, many = [], []
        for number in range(rounds):
            few.append(_held(25.0, lost, truth, number, seeds))
            many.append(_accuracy(25.0, lost, truth, number, max(1, seeds // 10), 1000, 1000, window=1000))
        yield from measured(BENCH, f"{lost:.1%} lost", {f"left open after {FIRST} samples": few}, "%")
        yield from measured(BENCH, f"{lost:.1%} lost", {"right after 1,000 samples": many}, "%")
    costs = alternate(
        rounds,
        {
            "an answer like those before": lambda: _cost(samples, 0.02, 0.02),
            "answers of two levels": lambda: _cost(samples, 0.02, 0.08),
            "one of five lost": lambda: _cost(samples, 0.02, 0.02, 0.02, 0.02, None),
        },
        least_of=3,
    )
    yield from measured(BENCH, "a sample", costs, "us")
    worst = min(after, key=lambda name: sum(after[name]))
    yield goal(BENCH, f"all links, % right after {FIRST} samples", _mean(list(after.values())), 95.0, at_least=True)
    yield goal(BENCH, f"the worst link ({worst}), % right", after[worst], 95.0, at_least=True)
    worst = min(at, key=lambda name: sum(at[name]))
    yield goal(BENCH, f"at the {FIRST}th sample, the worst ({worst})", at[worst], 95.0, at_least=True)
    yield goal(BENCH, "a sample, the dearest kind, us", costs["one of five lost"], 3.0)


def _named(ms: float, lost: float) -> str:
    return f"{ms:g} ms, {lost:.0%} lost"


def _truth(ms: float, lost: float) -> Quality:
    if lost == 1.0:
        return Quality.OFFLINE
    return Quality.POOR if lost else MIDDLES[ms]


def _samples(ms: float, lost: float, seed: str, count: int) -> Iterator[float | None]:
    """Seconds until the answer; None: there is none."""
    random = Random(seed)
    for _ in range(count):
        yield None if random.random() < lost else ms / 1000 * random.lognormvariate(0.0, SCATTER)


def _readings(ms: float, lost: float, seed: str, first: int, last: int, window: int | None) -> Iterator[Estimate]:
    """The estimate after each sample from `first` to `last`."""
    estimate = Estimate(0.0) if window is None else Estimate(0.0, window=window)
    pace = 1.0 if window is None else 0.25  # all of them within the five minutes that are looked at
    for number, seconds in enumerate(_samples(ms, lost, seed, last), start=1):
        if seconds is None:
            estimate.failed(number * pace)
        else:
            estimate.answered(number * pace, seconds)
        if number >= first:
            yield estimate


def _accuracy(
    ms: float, lost: float, truth: Quality, number: int, seeds: int, first: int, last: int, *, window: int | None = None
) -> float:
    """Per cent of the readings that name the right level."""
    right = total = 0
    for seed in range(seeds):
        for estimate in _readings(ms, lost, f"{ms} {lost} {number} {seed}", first, last, window):
            total += 1
            right += estimate.quality is truth
    return right / total * 100


def _held(ms: float, lost: float, truth: Quality, number: int, seeds: int) -> float:
    """Per cent of the readings that leave the right level open."""
    held = 0
    for seed in range(seeds):
        [estimate] = _readings(ms, lost, f"{ms} {lost} {number} {seed}", FIRST, FIRST, None)
        metrics = estimate.metrics(float(FIRST))
        held += metrics.at_best.rank <= truth.rank <= metrics.at_worst.rank
    return held / seeds * 100


def _mean(series: list[list[float]]) -> list[float]:
    """Of all links, round by round."""
    return [sum(values) / len(values) for values in zip(*series, strict=True)]


def _cost(count: int, *latencies: float | None) -> float:
    """Microseconds of a sample, as a client brings it, with those latencies in turn."""
    sample = NetworkMonitor(background=False).sample
    turns = [latencies[number % len(latencies)] for number in range(count)]
    began = time.perf_counter()
    for latency in turns:
        sample(latency, latency is not None, 300)
    return (time.perf_counter() - began) / count * 1e6
