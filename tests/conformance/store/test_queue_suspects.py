"""Tasks whose process died: left to the pools, and claimed a few at a time; on every database."""

from __future__ import annotations

from storage.records import Fence, OwnerId, SessionId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.test_task_queue import POOL, claim, new, pool, turns


async def crashed(store: AsyncStorageBackend, *names: str) -> None:
    """Tasks that ran when their pool died, and were found."""
    await store.enqueue_tasks([new(name) for name in names], now_us=20)
    dying = await pool(store, OwnerId("dying"))
    assert turns(await claim(store, len(names), dying)) == list(names)
    await store.expire_owner(dying)
    for name in names:
        assert await store.release_orphan(SessionId(f"s-{name}"), now_us=30)


async def test_suspects_are_claimed_a_few_at_a_time_and_before_all_others(store: AsyncStorageBackend) -> None:
    await crashed(store, "a", "b", "c")
    await store.enqueue_tasks([new("d", priority=9), new("e")], now_us=40)
    await pool(store)
    first = await store.claim_tasks(POOL, limit=3, seq_block=64, now_us=50, suspects=1)
    assert sorted(turns(first)) == ["a", "d", "e"]
    assert {c.task.turn_id: (c.task.suspect, c.task.crashes) for c in first} == {
        "a": (True, 1), "d": (False, 0), "e": (False, 0),
    }  # fmt: skip
    assert await store.claim_tasks(POOL, limit=3, seq_block=64, now_us=50, suspects=0) == []
    assert turns(await store.claim_tasks(POOL, limit=1, seq_block=64, now_us=50, suspects=2)) == ["b"]
    assert turns(await store.claim_tasks(POOL, limit=9, seq_block=64, now_us=50, suspects=2)) == ["c"]


async def test_only_a_death_makes_a_suspect(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (claimed,) = await claim(store)
    fence = Fence(claimed.task.session_id, claimed.opened.session.epoch)
    assert not await store.release_orphan(fence.session_id, now_us=30), "it has a live owner"
    await store.disown_session(fence)
    assert await store.release_orphan(fence.session_id, now_us=30)
    (again,) = await store.claim_tasks(POOL, limit=9, seq_block=64, now_us=50, suspects=0)
    assert (again.task.turn_id, again.task.suspect, again.task.crashes) == ("t1", False, 1)
    assert not await store.release_orphan(SessionId("nowhere"), now_us=30)


async def test_a_message_is_for_session_actors(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task())
    await store.expire_owner(make.OWNER)
    assert not await store.release_orphan(make.SESSION, now_us=30)
    assert await store.orphaned_sessions(limit=9, now_us=30, ready=False) == [make.SESSION]
