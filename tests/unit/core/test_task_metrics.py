"""The numbers of pools in Prometheus' terms: histograms, sums that a replaced pool does not take back."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from actors import task_metrics as module
from actors.histogram import TASK_SECONDS, Durations, Histogram
from actors.messages import encode
from actors.replies import Description, decode_reply
from actors.task_metrics import TaskMetrics


class Bench:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = TaskMetrics(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"node": "n", **labels})


@pytest.fixture
def bench() -> Bench:
    return Bench()


def told(claims: float, *runs: float, node: str = "n", **numbers: float) -> Description:
    durations = Durations()
    for seconds in runs:
        durations.add(seconds)
    gauges = {"pool_claims": claims, "pool_slots": 32.0, **numbers}
    histograms = {"wunder_task_run_seconds": durations.histogram()}
    description = Description(gauges=gauges, info={"node_id": node}, histograms=histograms)
    answer: Any = decode_reply(encode(description))
    assert answer == description
    return description


def test_a_duration_is_in_the_bucket_of_its_bound_and_in_all_above() -> None:
    durations = Durations((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 9.0):
        durations.add(seconds)
    assert durations.histogram() == Histogram((2, 3, 4), 12.0)


def test_histograms_are_real_ones(bench: Bench) -> None:
    bench.metrics.update({"pool-1": told(3, 0.02, 2.0, 9999.0)})
    assert bench.value("wunder_task_run_seconds_bucket", le="0.025") == 1
    assert bench.value("wunder_task_run_seconds_bucket", le="2.5") == 2
    assert bench.value("wunder_task_run_seconds_bucket", le="3600.0") == 2
    assert bench.value("wunder_task_run_seconds_bucket", le="+Inf") == 3
    assert bench.value("wunder_task_run_seconds_count") == 3
    assert bench.value("wunder_task_run_seconds_sum") == pytest.approx(10001.02)
    text = generate_latest(bench.registry).decode()
    assert "# TYPE wunder_task_run_seconds histogram" in text
    assert text.count("wunder_task_run_seconds_bucket") == len(TASK_SECONDS) + 1


def test_pools_of_a_node_are_added_up_and_nodes_are_not(bench: Bench) -> None:
    bench.metrics.update(
        {"a": told(3, 1.0), "b": told(4, 1.0), "c": told(9, node="m"), "janitor": Description(gauges={})}
    )
    assert bench.value("wunder_task_claims_total") == 7
    assert bench.value("wunder_task_run_seconds_count") == 2
    assert bench.value("wunder_task_slots") == 64
    assert bench.registry.get_sample_value("wunder_task_claims_total", {"node": "m"}) == 9


def test_a_pool_that_is_replaced_takes_nothing_back(bench: Bench) -> None:
    bench.metrics.update({"pool-1": told(3, 1.0, turns_dead=2.0)})
    bench.metrics.update({})
    assert bench.value("wunder_task_claims_total") == 3
    assert bench.value("wunder_task_slots") is None, "it is not there"
    bench.metrics.update({"pool-2": told(1, 1.0)})
    bench.metrics.update({"pool-2": told(2, 1.0, 1.0)})
    assert bench.value("wunder_task_claims_total") == 5
    assert bench.value("wunder_task_dead_total") == 2
    assert bench.value("wunder_task_run_seconds_count") == 3


def test_one_that_did_not_answer_for_a_while_is_not_counted_twice(bench: Bench) -> None:
    for described in ({"pool-1": told(3)}, {}, {"pool-1": told(4)}):
        bench.metrics.update(described)
    assert bench.value("wunder_task_claims_total") == 4


def test_one_that_starts_again_under_its_name_goes_on_counting(bench: Bench) -> None:
    for described in ({"pool-1": told(3, 1.0)}, {"pool-1": told(1)}, {"pool-1": told(2)}):
        bench.metrics.update(described)
    assert bench.value("wunder_task_claims_total") == 5
    assert bench.value("wunder_task_run_seconds_count") == 1


def test_the_memory_of_what_is_gone_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PROCESSES", 3)
    for n in range(10):
        bench.metrics.update({f"pool-{n}": told(1, 1.0)})
    assert len(bench.metrics._told) == 3
    assert bench.value("wunder_task_claims_total") == 10
    assert bench.value("wunder_task_run_seconds_count") == 10
