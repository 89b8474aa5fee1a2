"""What a queue worker process is asked for, and the count that all of them keep in one file."""

from __future__ import annotations

import itertools
import mmap
import struct
from pathlib import Path
from typing import Literal

import msgspec

from scripts.benchmarks.numbers import Numbers

System = Literal["wunder", "procrastinate", "pgqueuer"]

_PLACE = struct.Struct("=q")


class QueuePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process: `slots` tasks at a time, at most `batch` of them taken by one query."""

    system: System
    url: str
    slots: int
    batch: int
    number: int
    tally: str


class QueueReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has seen: its waits from before the enqueuing call to the handler, its queries by name."""

    handled: int
    waits_ns: list[int]
    statements: dict[str, int]
    cpu_s: float


class Tally:
    """How many tasks each worker's handler has run; reading it costs the workers nothing."""

    def __init__(self, path: Path, places: int) -> None:
        if not path.exists():
            path.write_bytes(bytes(_PLACE.size * places))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _PLACE.size * places)
        self._places = places

    def put(self, place: int, count: int) -> None:
        _PLACE.pack_into(self._memory, place * _PLACE.size, count)

    def total(self) -> int:
        return sum(_PLACE.unpack_from(self._memory, place * _PLACE.size)[0] for place in range(self._places))

    def close(self) -> None:
        self._memory.close()


class Windows:
    """Totals at moments, and how even the rate between them is."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def add(self, at_s: float, total: int) -> None:
        self._samples.append((at_s, total))

    def numbers(self, width_s: float, name: str) -> Numbers:
        """The coefficient of variation (percent) of the rate in whole windows from the first sample on."""
        counts = self.counts(width_s)
        if len(counts) < 2:
            return {}
        mean = sum(counts) / len(counts)
        deviation = (sum((count - mean) ** 2 for count in counts) / (len(counts) - 1)) ** 0.5
        return {f"{name}_cv_percent": 100 * deviation / mean, f"{name}_windows": len(counts)}

    def counts(self, width_s: float) -> list[float]:
        """How many came in each whole window, between samples by proportion."""
        if len(self._samples) < 2:
            return []
        begin, end = self._samples[0][0], self._samples[-1][0]
        edges = [self._at(begin + width_s * n) for n in range(int((end - begin) / width_s) + 1)]
        return [after - before for before, after in itertools.pairwise(edges)]

    def _at(self, when_s: float) -> float:
        before = self._samples[0]
        for sample in self._samples:
            if sample[0] >= when_s:
                share = (when_s - before[0]) / (sample[0] - before[0]) if sample[0] > before[0] else 0.0
                return before[1] + share * (sample[1] - before[1])
            before = sample
        return before[1]
