"""How fast a pool is: measured while tasks wait, forgotten slowly, and not told while it is not known."""

from __future__ import annotations

import pytest

from actors.drain_rate import DrainRate


def drained(rate: DrainRate, *, start_s: float, seconds: int, per_s: int) -> None:
    """Tasks wait and leave evenly for so long; then none waits."""
    rate.waiting(True, start_s)
    for n in range(1, seconds * per_s + 1):
        rate.finished(start_s + n / per_s)
    rate.waiting(False, start_s + seconds)


def test_nothing_is_known_at_first() -> None:
    rate = DrainRate()
    assert rate.per_s(0.0) is None
    rate.finished(1.0)
    rate.finished(2.0)
    assert rate.per_s(3.0) is None, "nobody waited"


def test_it_is_what_left_while_others_waited() -> None:
    rate = DrainRate()
    drained(rate, start_s=100.0, seconds=10, per_s=4)
    assert rate.per_s(110.0) == pytest.approx(4.0, rel=0.05)
    rate.finished(150.0)
    assert rate.per_s(200.0) == pytest.approx(4.0, rel=0.05), "a quiet time changes nothing"


def test_what_is_long_ago_is_not_told() -> None:
    rate = DrainRate()
    drained(rate, start_s=0.0, seconds=10, per_s=4)
    assert rate.per_s(600.0) is not None
    assert rate.per_s(700.0) is None


def test_the_newer_counts_more() -> None:
    rate = DrainRate()
    drained(rate, start_s=0.0, seconds=60, per_s=10)
    drained(rate, start_s=60.0, seconds=120, per_s=1)
    found = rate.per_s(180.0)
    assert found is not None
    assert 1.0 < found < 3.0


def test_a_pool_that_hangs_becomes_slow() -> None:
    rate = DrainRate()
    drained(rate, start_s=0.0, seconds=30, per_s=10)
    rate.waiting(True, 30.0)
    found = rate.per_s(90.0)
    assert found is not None
    assert found < 4.0
