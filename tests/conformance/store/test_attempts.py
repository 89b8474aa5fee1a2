"""The attempts of a task: each with its own start, its end, and why it ended; on every database."""

from __future__ import annotations

from storage.records import AttemptRecord, Fence, OwnerId, TurnId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.test_task_queue import claim, finished, new, pool

T1 = TurnId("t1")


async def attempts(store: AsyncStorageBackend) -> list[tuple[int, str, int | None, int]]:
    return [(a.attempt, a.outcome, a.started_us, a.finished_us) for a in await store.list_attempts(T1)]


async def started(store: AsyncStorageBackend) -> tuple[int | None, int | None]:
    task = await store.get_task(T1)
    assert task is not None
    return task.started_us, task.attempt_started_us


async def test_a_claim_that_finds_a_crash_records_it(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (first,) = await store.claim_tasks(OwnerId("pool-1"), limit=9, seq_block=64, now_us=50)
    assert await started(store) == (50, 50)
    fence = Fence(first.task.session_id, first.opened.session.epoch)
    await store.close_session(fence, last_seq=1, now_us=60)  # it still runs: the next pool takes it up
    (again,) = await store.claim_tasks(OwnerId("pool-1"), limit=9, seq_block=64, now_us=70)
    assert (again.task.attempt, again.task.crashes, again.task.attempt_started_us) == (2, 1, 70)
    assert await attempts(store) == [(1, "crashed", 50, 70)]
    assert await started(store) == (50, 70)


async def test_an_owner_that_takes_a_turn_up_records_the_crash(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task())
    for now_us, attempt in ((20, 2), (30, 3)):
        resumed = await store.resume_turn(fence, T1, now_us=now_us)
        assert resumed is not None
        assert (resumed.attempt, resumed.attempt_started_us) == (attempt, now_us)
    assert await attempts(store) == [(1, "crashed", 10, 20), (2, "crashed", 20, 30)]


async def test_what_does_not_run_has_not_crashed(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task("t1", "queued"))
    assert await store.resume_turn(fence, T1, now_us=20) is None
    assert await attempts(store) == []


async def test_a_failed_attempt_began_when_it_began(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1", max_attempts=3)], now_us=20)
    await pool(store)
    for number, now_us in ((1, 50), (2, 70)):
        (claimed,) = await store.claim_tasks(OwnerId("pool-1"), limit=9, seq_block=64, now_us=now_us)
        fence = Fence(claimed.task.session_id, claimed.opened.session.epoch)
        assert claimed.task.attempt == number
        await store.retry_turn(
            fence, claimed.task, run_at_us=now_us + 5, error=b"{}", messages=[], events=[], now_us=now_us + 1
        )
        await store.close_session(fence, last_seq=1, now_us=now_us + 2)
        await store.promote_due(limit=9, now_us=now_us + 6)
    assert await attempts(store) == [(1, "failed", 50, 51), (2, "failed", 70, 71)]


async def test_an_end_that_is_taken_back_is_an_attempt(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (claimed,) = await claim(store)
    await store.finish_and_leave([finished(claimed, "dead")])
    assert await attempts(store) == []
    for _ in range(2):
        await store.requeue_task(T1, now_us=120)
    assert await attempts(store) == [(1, "dead", 50, 99)]


async def test_an_attempt_is_kept_once(store: AsyncStorageBackend) -> None:
    one = AttemptRecord(turn_id=T1, attempt=1, outcome="crashed", started_us=1, finished_us=2)
    await store.record_attempt(one)
    await store.record_attempt(AttemptRecord(turn_id=T1, attempt=1, outcome="failed", finished_us=3))
    assert await store.list_attempts(T1) == [one]
