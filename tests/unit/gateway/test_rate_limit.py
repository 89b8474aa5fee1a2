from __future__ import annotations

import pytest

from gateway.rate_limit import Pace, RecentMap, TokenBuckets
from tests.support.manual_clock import ManualClock


def test_a_bucket_gives_its_burst_then_its_rate(clock: ManualClock) -> None:
    buckets = TokenBuckets(clock, rate_per_minute=60, burst=3)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(1.0)
    assert buckets.take("b") == 0
    clock.advance(0.25)
    assert buckets.take("a") == pytest.approx(0.75)
    clock.advance(0.75)
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0


def test_waiting_never_fills_beyond_the_burst(clock: ManualClock) -> None:
    buckets = TokenBuckets(clock, rate_per_minute=60, burst=2)
    buckets.take("a")
    clock.advance(3600)
    assert buckets.level("a") == 2
    buckets.give_back("a")
    assert buckets.level("a") == 2


def test_what_is_charged_afterwards_can_leave_a_debt(clock: ManualClock) -> None:
    buckets = TokenBuckets(clock, rate_per_minute=60, burst=2, max_debt=3)
    for _ in range(10):
        buckets.charge("a")
    assert buckets.level("a") == -3
    assert buckets.wait_s("a") == 4
    assert buckets.take("a") == 4
    clock.advance(4)
    assert (buckets.wait_s("a"), buckets.take("a"), buckets.wait_s("a")) == (0, 0, 1)
    clock.advance(5)
    buckets.sweep()
    assert len(buckets) == 0


def test_full_buckets_are_forgotten_by_use_and_by_sweep(clock: ManualClock) -> None:
    buckets = TokenBuckets(clock, rate_per_minute=60, burst=5)
    for number in range(100):
        buckets.take(f"network {number}")
    clock.advance(5)
    buckets.take("another")
    assert len(buckets) == 99
    buckets.sweep()
    assert len(buckets) == 1


def test_memory_is_bounded_however_many_keys_come(clock: ManualClock) -> None:
    buckets = TokenBuckets(clock, rate_per_minute=1, burst=5, max_entries=50)
    for number in range(10_000):
        buckets.take(f"network {number}")
    assert len(buckets) == 50
    assert buckets.level("network 9999") < 5
    assert buckets.level("network 0") == 5


def test_a_pace_counts_what_is_sent_in_vain(clock: ManualClock) -> None:
    pace = Pace(clock.monotonic_s, rate_per_minute=60, burst=4)
    assert [pace.take() for _ in range(4)] == [0, 0, 0, 0]
    assert [pace.take() for _ in range(2)] == [0.25, 0.5]
    assert pace.wait_s == pytest.approx(2)
    clock.advance(2)
    assert pace.take() == 0.25
    clock.advance(3600)
    assert [pace.take() > 0 for _ in range(5)] == [False] * 4 + [True]


def test_a_recent_map_forgets_what_is_old(clock: ManualClock) -> None:
    recent: RecentMap[str, int] = RecentMap(clock, keep_s=10, max_entries=3)
    recent.put("a", 1)
    clock.advance(9)
    recent.put("b", 2)
    assert (recent.get("a"), recent.get("b")) == (1, 2)
    clock.advance(1)
    assert (recent.get("a"), recent.get("b")) == (None, 2)
    assert recent.pop("b") == 2
    assert recent.pop("b") is None
    recent.sweep()
    assert len(recent) == 0


def test_writing_makes_an_entry_the_newest(clock: ManualClock) -> None:
    recent: RecentMap[str, int] = RecentMap(clock, keep_s=10, max_entries=2)
    for key in ("a", "b", "a", "c"):
        recent.put(key, 1)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 1)
