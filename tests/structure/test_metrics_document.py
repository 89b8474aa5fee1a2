"""docs/metrics.md names every metric with its kind and its labels, and none that there is not."""

from __future__ import annotations

import re

from actors.histogram import Durations
from actors.metrics import GatewayMetrics
from actors.replies import Description
from actors.task_metrics import COUNTERS, GAUGES, HISTOGRAMS
from tests.structure.rules import ROOT

ROW = re.compile(r"^\| `(wunder_\w+)` \| (\w+) \| ?(.*?) ?\| (.+) \|$", re.MULTILINE)


def test_the_table_and_the_code_agree() -> None:
    metrics = GatewayMetrics()
    numbers = {number: 1.0 for number, _ in [*COUNTERS.values(), *GAUGES.values()]}
    histograms = {name: Durations().histogram() for name in HISTOGRAMS}
    metrics.background.update({"pool": Description(gauges=numbers, info={"node_id": "n"}, histograms=histograms)})
    found = {metric.name: metric.type for metric in metrics.registry.collect()}
    rows = ROW.findall((ROOT / "docs" / "metrics.md").read_text())
    assert {name: kind for name, kind, _, _ in rows} == found
    assert len(rows) == len(found)


def test_the_labels_agree() -> None:
    metrics = GatewayMetrics()
    labels = {name: set(re.findall(r"`(\w+)`", cell)) for name, _, cell, _ in ROW.findall(_text())}
    declared = {m._name: set(m._labelnames) for m in vars(metrics).values() if hasattr(m, "_labelnames")}
    assert declared
    assert {name: labels[name] for name in declared} == declared
    assert all(labels[name] == {"node"} for name in [*COUNTERS, *GAUGES, *HISTOGRAMS])


def _text() -> str:
    return (ROOT / "docs" / "metrics.md").read_text()
