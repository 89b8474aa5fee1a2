"""Background tasks in Prometheus' terms: what pools and session actors tell of themselves, summed by their node.

A process that is gone keeps what it last told in the sums, so replacing a pool takes nothing back. A new gateway knows
only the processes that are there: its counters begin lower, which Prometheus takes for the reset that it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from actors.histogram import TASK_SECONDS, Histogram
from actors.replies import Description

HISTOGRAMS = {
    "wunder_task_wait_seconds": "Time from a task's acceptance to its first claim.",
    "wunder_task_run_seconds": "Time from a task's claim until it left its slot.",
}
COUNTERS = {
    "wunder_task_claims": ("pool_claims", "Times that pools asked for tasks."),
    "wunder_task_empty_claims": ("pool_empty_claims", "Times that pools asked for tasks in vain."),
    "wunder_task_claimed": ("pool_claimed", "Tasks that pools got."),
    "wunder_task_retries": ("turns_retried", "Attempts that failed and are tried again."),
    "wunder_task_dead": ("turns_dead", "Tasks given up."),
    "wunder_lease_losses": ("leases_lost", "Leases that a pool or a session actor lost."),
}
GAUGES = {
    "wunder_task_slots": ("pool_slots", "How many tasks the pools can run at a time."),
    "wunder_task_slots_in_use": ("pool_slots_in_use", "How many they run."),
}
_MOST_PROCESSES = 500
_EMPTY = Histogram((0,) * (len(TASK_SECONDS) + 1), 0.0)


class _Told(msgspec.Struct):
    """Numbers of one process that only grow."""

    counters: dict[str, float] = {}
    histograms: dict[str, Histogram] = {}

    def add(self, other: _Told) -> None:
        for number, value in other.counters.items():
            self.counters[number] = self.counters.get(number, 0.0) + value
        for name, histogram in other.histograms.items():
            self.histograms[name] = self.histograms.get(name, _EMPTY) + histogram

    def is_before(self, later: _Told) -> bool:
        """Whether one process can have told this and then `later`."""
        return all(value <= later.counters.get(number, 0.0) for number, value in self.counters.items())


class TaskMetrics:
    """A collector: `update` takes what the processes told, by their names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._told: dict[tuple[str, str], _Told] = {}
        self._past: dict[str, _Told] = {}
        self._gauges: dict[str, dict[str, float]] = {}
        registry.register(self)

    def update(self, described: Mapping[str, Description]) -> None:
        self._gauges = {}
        for name, description in described.items():
            node = description.info.get("node_id")
            if isinstance(node, str):
                self._take((node, name), description)
        while len(self._told) > _MOST_PROCESSES:  # those that have been gone for the longest
            (node, name) = next(iter(self._told))
            self._past.setdefault(node, _Told()).add(self._told.pop((node, name)))

    def _take(self, process: tuple[str, str], description: Description) -> None:
        numbers, node = description.gauges, process[0]
        counters = {number: numbers[number] for number, _ in COUNTERS.values() if number in numbers}
        told = _Told(counters, dict(description.histograms))
        before = self._told.pop(process, None)
        if before is not None and not before.is_before(told):  # a process with its name has taken its place
            self._past.setdefault(node, _Told()).add(before)
        self._told[process] = told
        here = self._gauges.setdefault(node, {})
        for number, _ in GAUGES.values():
            if number in numbers:
                here[number] = here.get(number, 0.0) + numbers[number]

    def _sums(self) -> dict[str, _Told]:
        sums: dict[str, _Told] = {}
        past = list(self._past.items())
        for node, told in [*past, *((node, told) for (node, _), told in self._told.items())]:
            sums.setdefault(node, _Told({}, {})).add(told)
        return sums

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        sums = self._sums()
        for name, document in HISTOGRAMS.items():
            family = HistogramMetricFamily(name, document, labels=["node"])
            for node, told in sums.items():
                if (histogram := told.histograms.get(name)) is not None:
                    bounds = [*map(str, TASK_SECONDS), "+Inf"]
                    family.add_metric([node], list(zip(bounds, histogram.counts, strict=True)), histogram.sum_s)
            yield family
        for name, (number, document) in COUNTERS.items():
            counter = CounterMetricFamily(name, document, labels=["node"])
            for node, told in sums.items():
                if number in told.counters:
                    counter.add_metric([node], told.counters[number])
            yield counter
        for name, (number, document) in GAUGES.items():
            gauge = GaugeMetricFamily(name, document, labels=["node"])
            for node, numbers in self._gauges.items():
                if number in numbers:
                    gauge.add_metric([node], numbers[number])
            yield gauge
