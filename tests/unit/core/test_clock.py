"""Times as people and browsers read them; ids that do not repeat."""

from __future__ import annotations

import pytest

from actors.clock import SystemClock, isoformat


@pytest.mark.parametrize(
    ("now_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999_999, "1970-01-01T00:00:00.999Z"),
        (1_767_323_045_678_999, "2026-01-02T03:04:05.678Z"),
        (1_767_323_045_000_000, "2026-01-02T03:04:05.000Z"),
    ],
)
def test_times_are_utc_with_milliseconds(now_us: int, text: str) -> None:
    assert isoformat(now_us) == text


def test_ids_carry_their_kind_and_do_not_repeat() -> None:
    clock = SystemClock()
    ids = {clock.new_id("own") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(found.startswith("own_") for found in ids)


def test_monotonic_time_and_wall_time_go_on() -> None:
    clock = SystemClock()
    first = (clock.now_us(), clock.monotonic_s())
    second = (clock.now_us(), clock.monotonic_s())
    assert second >= first
