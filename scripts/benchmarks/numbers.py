"""Percentiles of one measurement, medians of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

Numbers = dict[str, float]


class Spread(msgspec.Struct, frozen=True):
    """A number over several runs."""

    median: float
    low: float
    high: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the (sorted) values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles(name: str, values_ns: Sequence[float], shares: Sequence[int] = (50, 95, 99)) -> Numbers:
    """`name_p50_ms` ... `name_max_ms` of nanoseconds; nothing if there are none."""
    if not values_ns:
        return {}
    ordered = sorted(values_ns)
    found = {f"{name}_p{share}_ms": percentile(ordered, share / 100) / 1e6 for share in shares}
    return {**found, f"{name}_max_ms": ordered[-1] / 1e6}


def spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Each number's median with the lowest and highest run."""
    names = dict.fromkeys(name for run in runs for name in run)
    found = {}
    for name in names:
        values = [run[name] for run in runs if name in run]
        found[name] = Spread(median(values), min(values), max(values))
    return found
