"""Durations counted per bucket: plain integers in the process that measures, cumulative when they are told."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import msgspec

TASK_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the buckets for the wait and the run of background tasks; everything above is in one more."""


class Histogram(msgspec.Struct, frozen=True):
    """How many durations were at most each bound, then how many there were in all; and their sum in seconds."""

    counts: tuple[int, ...]
    sum_s: float

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)), self.sum_s + other.sum_s)


class Durations:
    """Counts durations of one kind."""

    def __init__(self, bounds: tuple[float, ...] = TASK_SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum_s += seconds

    def histogram(self) -> Histogram:
        return Histogram(tuple(accumulate(self._counts)), self._sum_s)
