"""Tasks whose time comes: promoted once, many at a time, each session in its order; on every database."""

from __future__ import annotations

import asyncio
from typing import Any

from storage.records import Fence, SessionId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.test_task_queue import claim, finished, new, pool, turns


async def test_many_tasks_come_due_at_once_each_session_one_after_the_other(store: AsyncStorageBackend) -> None:
    for n in range(4):
        items = [new(f"t{n}", session="s", create=not n, created_us=10 + n, run_at_us=100 - n)]
        await store.enqueue_tasks([*items, new(f"u{n}", run_at_us=100)], now_us=20)
    await store.enqueue_tasks([new("later", run_at_us=500)], now_us=20)
    fence = await make.fence(store, "owned")
    await store.enqueue_tasks([new("v", session="owned", create=False, run_at_us=100)], now_us=20)
    promoted = await store.promote_due(limit=99, now_us=100)
    assert sorted(promoted) == sorted(
        [("s", None)] * 4 + [(f"s-u{n}", None) for n in range(4)] + [("owned", make.OWNER)]
    )
    assert await store.promote_due(limit=99, now_us=100) == []
    await pool(store)
    claimed = await claim(store)
    assert sorted(turns(claimed)) == ["t0", "u0", "u1", "u2", "u3"]
    for n in range(1, 4):
        (before,) = [c for c in claimed if c.task.session_id == "s"]
        await store.finish_and_leave([finished(before)])
        claimed = await claim(store)
        assert turns(claimed) == [f"t{n}"]
    await store.close_session(fence, last_seq=2, now_us=110)
    assert turns(await claim(store)) == ["v"]
    assert await store.next_due() == 500


async def test_of_concurrent_promoters_one_promotes_each_task(two_stores: Any) -> None:
    one, two = two_stores
    await one.enqueue_tasks([new(f"t{n}", run_at_us=100) for n in range(40)], now_us=20)
    rounds = [store.promote_due(limit=7, now_us=100) for store in (one, two) for _ in range(8)]
    found = [session for promoted in await asyncio.gather(*rounds) for session, _ in promoted]
    found += [session for session, _ in await one.promote_due(limit=99, now_us=100)]
    assert sorted(found) == sorted(f"s-t{n}" for n in range(40))
    assert len(await claim(one, 99, await pool(one))) == 40


async def test_what_comes_due_does_not_overtake_a_retry(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1", session="s", max_attempts=3)], now_us=20)
    await store.enqueue_tasks([new("t2", session="s", create=False, run_at_us=60, created_us=11)], now_us=21)
    await pool(store)
    (claimed,) = await claim(store)
    fence = Fence(SessionId("s"), claimed.opened.session.epoch)
    await store.retry_turn(fence, claimed.task, run_at_us=500, error=b"{}", messages=[], events=[], now_us=55)
    await store.close_session(fence, last_seq=1, now_us=56)
    assert await store.promote_due(limit=9, now_us=60) == [("s", None)]
    assert await claim(store) == []
    await store.promote_due(limit=9, now_us=500)
    assert turns(await claim(store)) == ["t1"]
