"""The one loop: interval, wake, back-off, stop."""

from __future__ import annotations

import asyncio

import pytest

from actors.errors import StorageUnavailable
from actors.loop import Loop
from tests.support.facts import eventually


class Work:
    """Counts its runs; fails as often as it is told."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.runs = 0
        self.failures = failures
        self.error = error or StorageUnavailable("away")
        self.ran = asyncio.Event()

    async def once(self) -> None:
        self.runs += 1
        self.ran.set()
        if self.failures:
            self.failures -= 1
            raise self.error


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a loop would have waited; it waits a thousandth of a second at most."""
    found: list[float] = []
    real = asyncio.timeout

    def timeout(delay_s: float) -> asyncio.Timeout:
        found.append(delay_s)
        return real(min(delay_s, 0.0005))

    monkeypatch.setattr("actors.loop.asyncio.timeout", timeout)
    return found


async def test_a_loop_runs_at_once_and_then_every_interval(delays: list[float]) -> None:
    work = Work()
    loop = Loop("test", work.once, interval_s=5, jitter=0)
    loop.start()
    await eventually(lambda: work.runs >= 3, "three runs")
    await loop.stop()
    assert set(delays) == {5}


async def test_jitter_spreads_the_interval(delays: list[float]) -> None:
    work = Work()
    loop = Loop("test", work.once, interval_s=10, jitter=0.2)
    loop.start()
    await eventually(lambda: work.runs >= 20, "twenty runs")
    await loop.stop()
    assert all(8 <= delay <= 12 for delay in delays)
    assert len(set(delays)) > 1


@pytest.mark.parametrize("error", [StorageUnavailable("away"), RuntimeError("a bug")])
async def test_failures_back_off_to_a_bound_and_a_success_ends_that(delays: list[float], error: Exception) -> None:
    work = Work(failures=5, error=error)
    loop = Loop("test", work.once, interval_s=1, jitter=0, max_backoff_s=10)
    loop.start()
    await eventually(lambda: work.runs >= 7, "seven runs")
    await loop.stop()
    assert delays[:7] == [2, 4, 8, 10, 10, 1, 1]


async def test_a_back_off_is_never_shorter_than_the_interval(delays: list[float]) -> None:
    work = Work(failures=3)
    loop = Loop("test", work.once, interval_s=60, jitter=0, max_backoff_s=15)
    loop.start()
    await eventually(lambda: work.runs >= 3, "three runs")
    await loop.stop()
    assert set(delays) == {60}


async def test_a_loop_outlives_an_outage_of_any_length(delays: list[float]) -> None:
    work = Work(failures=1200)
    loop = Loop("test", work.once, interval_s=4.0, jitter=0, max_backoff_s=1e-9)
    loop.start()
    loop_wakes = asyncio.ensure_future(_keep_waking(loop, work, 1202))
    await eventually(lambda: work.runs >= 1202, "it goes on after 1200 failures")
    await loop_wakes
    await loop.stop()
    assert max(delays) == 4.0


async def _keep_waking(loop: Loop, work: Work, runs: int) -> None:
    while work.runs < runs:
        loop.wake()
        await asyncio.sleep(0)


async def test_a_wake_is_not_lost_while_it_runs() -> None:
    work = Work()
    loop = Loop("test", work.once, interval_s=1000)
    original = work.once

    async def waking() -> None:
        await original()
        if work.runs == 1:
            loop.wake()

    loop._run_once = waking  # type: ignore[method-assign]
    loop.start()
    await eventually(lambda: work.runs == 2, "it ran again")
    await loop.stop()


async def test_stopping_ends_a_run_that_is_under_way() -> None:
    began, ended = asyncio.Event(), []

    async def forever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    loop = Loop("test", forever, interval_s=1)
    await loop.stop()
    loop.start()
    await began.wait()
    await loop.stop()
    assert ended == [1]
