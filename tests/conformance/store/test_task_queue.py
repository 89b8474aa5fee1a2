"""The task queue: enqueued once, claimed once in a fair order, finished, retried, put back; on every database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.queue_writer import FinishedTurn
from storage.records import ClaimedTask, Fence, NewTask, OwnerId, SessionId, TaskRecord, TurnId, UserId
from storage.store import AsyncStorageBackend
from storage.turn_writer import Completion
from tests.conformance.store import make

POOL = OwnerId("pool-1")
EVENT = b'{"position":1}'


def new(turn: str, user: str = "u1", session: str | None = None, *, create: bool = True, **fields: Any) -> NewTask:
    session_id = session or f"s-{turn}"
    task = make.task(
        turn, "queued", session_id=SessionId(session_id), user_id=UserId(user), origin="task", attempt=0, **fields
    )
    made = make.session(session_id, user) if create else None
    return NewTask(task=task, session=made, event=EVENT)


async def pool(store: AsyncStorageBackend, owner: OwnerId = POOL) -> OwnerId:
    await store.register_owner(owner, "node", lease_s=60)
    return owner


async def claim(store: AsyncStorageBackend, limit: int = 10, owner: OwnerId = POOL) -> list[ClaimedTask]:
    return await store.claim_tasks(owner, limit=limit, seq_block=64, now_us=50)


def turns(claimed: list[ClaimedTask]) -> list[str]:
    return [c.task.turn_id for c in claimed]


def finished(claimed: ClaimedTask, status: Any = "succeeded", **fields: Any) -> FinishedTurn:
    task, first = claimed.task, claimed.opened.first_seq
    end = Completion(
        turn_id=task.turn_id, attempt=task.attempt, status=status, answer="fine", error=None, usage=None,
        stop_reason="stop", now_us=99,
    )  # fmt: skip
    event = make.event(first, "turn_terminal", session_id=task.session_id, turn_id=task.turn_id)
    message = make.message(claimed.opened.session.message_count, task.turn_id, session_id=task.session_id)
    values: dict[str, Any] = {"events": (event,), "messages": (message,), "last_seq": first, **fields}
    fence = Fence(task.session_id, claimed.opened.session.epoch)
    return FinishedTurn(fence=fence, end=end, **values)


async def test_a_task_is_recorded_with_its_session_and_its_event(store: AsyncStorageBackend) -> None:
    item = new("t1", priority=3, max_attempts=4, idempotency_key="k")
    (recorded,) = await store.enqueue_tasks([item], now_us=20)
    assert (recorded.task, recorded.duplicate, recorded.owner_id) == (item.task, False, None)
    stored = await store.get_task(TurnId("t1"))
    assert stored == item.task
    (event,) = await store.read_events(SessionId("s-t1"), after=0, limit=9, max_bytes=999)
    assert (event.seq, event.kind, event.data, event.turn_id) == (1, "queued", EVENT, "t1")
    session = await store.get_session(SessionId("s-t1"))
    assert session is not None
    assert (session.reserved_seq, session.owner_id) == (1, None)


async def test_enqueuing_again_changes_nothing(store: AsyncStorageBackend) -> None:
    item = new("t1")
    await store.enqueue_tasks([item], now_us=20)
    (again,) = await store.enqueue_tasks([item], now_us=21)
    assert again.task is not None
    assert (again.task.turn_id, again.duplicate) == ("t1", False)
    assert len(await store.read_events(SessionId("s-t1"), after=0, limit=9, max_bytes=999)) == 1


async def test_a_known_key_gives_the_earlier_task(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1", idempotency_key="k")], now_us=20)
    (again,) = await store.enqueue_tasks([new("t2", session="s-t1", idempotency_key="k")], now_us=21)
    assert again.task is not None
    assert (again.task.turn_id, again.duplicate) == ("t1", True)
    assert await store.get_task(TurnId("t2")) is None


async def test_into_a_session_of_somebody_else_or_of_nobody(store: AsyncStorageBackend) -> None:
    await store.create_session(make.session("theirs", "bob"))
    found = await store.enqueue_tasks(
        [new("t1", session="theirs", create=False), new("t2", session="none", create=False)], now_us=20
    )
    assert [f.task for f in found] == [None, None]


async def test_a_claim_opens_the_session_and_starts_the_task(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (claimed,) = await claim(store)
    assert (claimed.task.status, claimed.task.attempt, claimed.opened.running) == ("running", 1, None)
    opened = claimed.opened
    assert (opened.session.owner_id, opened.session.epoch, opened.first_seq, opened.last_seq) == (POOL, 1, 2, 1)
    assert opened.session.reserved_seq == 65
    assert await claim(store) == []


async def test_without_a_live_lease_nothing_is_claimed(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    assert await claim(store) == []
    await pool(store)
    await store.expire_owner(POOL)
    assert await claim(store) == []


async def test_the_order_is_priority_and_then_fair_between_users(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new(f"a{n}", "ada") for n in range(5)], now_us=20)
    await store.enqueue_tasks([new("b0", "bob"), new("b1", "bob")], now_us=21)
    await store.enqueue_tasks([new("c0", "cleo", priority=5)], now_us=22)
    await pool(store)
    order = [turns(await claim(store, 1))[0] for _ in range(8)]
    assert order[0] == "c0"
    assert order.index("b0") < order.index("a2")
    assert order.index("b1") < order.index("a3")
    assert [t for t in order if t.startswith("a")] == [f"a{n}" for n in range(5)]


async def test_of_concurrent_claimers_one_gets_each_task(two_stores: Any) -> None:
    one, two = two_stores
    await one.enqueue_tasks([new(f"t{n}") for n in range(40)], now_us=20)
    other = await pool(two, OwnerId("pool-2"))
    await pool(one)
    rounds = [claim(one, 3) if n % 2 else claim(two, 3, other) for n in range(40)]
    found = [turn for claimed in await asyncio.gather(*rounds) for turn in turns(claimed)]
    assert sorted(found) == sorted(f"t{n}" for n in range(40))


async def test_a_sessions_tasks_are_claimed_one_after_the_other(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1", session="s")], now_us=20)
    for n in (2, 3):
        await store.enqueue_tasks([new(f"t{n}", session="s", create=False, created_us=10 + n)], now_us=20 + n)
    await pool(store)
    for n in (1, 2, 3):
        (claimed,) = await claim(store)
        assert claimed.task.turn_id == f"t{n}"
        assert await store.finish_and_leave([finished(claimed)]) == [True]
    assert await claim(store) == []


async def test_a_finished_turn_is_whole_and_its_session_is_left(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1"), new("t2")], now_us=20)
    await pool(store)
    claimed = await claim(store)
    ends = [finished(c) for c in claimed]
    assert await store.finish_and_leave(ends) == [True, True]
    assert await store.finish_and_leave(ends) == [True, True], "repeating is harmless"
    for c in claimed:
        session = await store.get_session(c.task.session_id)
        assert session is not None
        assert (session.owner_id, session.reserved_seq, session.message_count) == (None, 2, 1)
        task = await store.get_task(c.task.turn_id)
        assert task is not None
        assert (task.status, task.answer, task.finished_us) == ("succeeded", "fine", 99)
        assert [e.kind for e in await store.read_events(c.task.session_id, after=1, limit=9, max_bytes=999)] == [
            "turn_terminal"
        ]


async def test_a_completion_is_fenced_by_epoch_and_attempt(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (first,) = await claim(store)
    await store.expire_owner(POOL)
    other = await pool(store, OwnerId("other"))
    opened = await store.open_session(first.task.session_id, other, seq_block=64, now_us=60)
    assert opened.running is not None
    assert await store.finish_and_leave([finished(first)]) == [False]
    task = await store.resume_turn(Fence(first.task.session_id, opened.session.epoch), TurnId("t1"), now_us=61)
    assert task is not None
    assert (task.attempt, task.crashes) == (2, 1)


async def test_a_success_is_refused_once_its_cancel_was_requested(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (claimed,) = await claim(store)
    await store.request_cancel(TurnId("t1"))
    assert await store.finish_and_leave([finished(claimed)]) == [False]
    assert await store.finish_and_leave([finished(claimed, "cancelled")]) == [True]


async def test_an_owner_that_opens_a_session_takes_its_tasks_from_the_pools(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    fence = await make.fence(store, "s-t1")
    await pool(store)
    assert await claim(store) == []
    (more,) = await store.enqueue_tasks([new("t2", session="s-t1", create=False)], now_us=30)
    assert more.owner_id == make.OWNER
    assert [t.turn_id for t in await store.queued_tasks(SessionId("s-t1"), limit=9)] == ["t1", "t2"]
    await store.close_session(fence, last_seq=2, now_us=40)
    assert turns(await claim(store)) == ["t1"]


async def test_a_task_whose_time_has_not_come_waits_and_holds_nobody_up(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("later", session="s", run_at_us=1000)], now_us=20)
    await store.enqueue_tasks([new("now", session="s", create=False)], now_us=21)
    await pool(store)
    (claimed,) = await claim(store)
    assert claimed.task.turn_id == "now"
    assert await store.next_due() == 1000
    assert await store.promote_due(limit=9, now_us=999) == []
    await store.finish_and_leave([finished(claimed)])
    assert await store.promote_due(limit=9, now_us=1000) == [("s", None)]
    assert await store.next_due() is None
    assert turns(await claim(store)) == ["later"]


async def test_a_retry_keeps_its_place_and_waits_for_its_time(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1", session="s")], now_us=20)
    await store.enqueue_tasks([new("t2", session="s", create=False, created_us=11)], now_us=21)
    await pool(store)
    (claimed,) = await claim(store)
    fence = Fence(SessionId("s"), claimed.opened.session.epoch)
    error = b'{"code":"LLM_UNAVAILABLE"}'
    retried = await store.retry_turn(fence, claimed.task, run_at_us=500, error=error, messages=[], events=[], now_us=60)
    assert retried
    await store.close_session(fence, last_seq=1, now_us=61)
    assert await claim(store) == [], "the second task does not overtake the first"
    await store.promote_due(limit=9, now_us=500)
    (again,) = await claim(store)
    assert (again.task.turn_id, again.task.attempt, again.task.failures) == ("t1", 2, 1)
    assert again.opened.running is None
    (attempt,) = await store.list_attempts(TurnId("t1"))
    assert (attempt.attempt, attempt.outcome, attempt.error) == (1, "failed", error)


async def test_tasks_for_the_pools_are_no_orphans(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    assert await store.orphaned_sessions(limit=9, now_us=30, ready=False) == []
    assert await store.orphaned_sessions(limit=9, now_us=30, ready=True) == ["s-t1"]
    await pool(store)
    await claim(store)
    assert await store.orphaned_sessions(limit=9, now_us=30, ready=False) == []
    await store.expire_owner(POOL)
    assert await store.orphaned_sessions(limit=9, now_us=30, ready=False) == ["s-t1"]


async def test_what_waits_behind_a_task_for_the_pools_is_no_orphan(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1", session="s")], now_us=20)
    await store.enqueue_tasks([new("t2", session="s", create=False, created_us=11)], now_us=21)
    assert await store.orphaned_sessions(limit=9, now_us=30, ready=False) == []


async def test_a_dead_task_is_queued_again(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    assert (await store.requeue_task(TurnId("t1"), now_us=21)).task is None
    assert (await store.requeue_task(TurnId("none"), now_us=21)).task is None
    await pool(store)
    (claimed,) = await claim(store)
    await store.finish_and_leave([finished(claimed, "dead")])
    requeued = (await store.requeue_task(TurnId("t1"), now_us=70)).task
    assert requeued is not None
    assert (requeued.status, requeued.failures, requeued.finished_us) == ("queued", 0, None)
    (again,) = await claim(store)
    assert again.task.attempt == 2


async def test_lists_are_newest_first_and_paged(store: AsyncStorageBackend) -> None:
    items = [new(f"t{n}", "ada" if n % 2 else "bob", created_us=100 + n) for n in range(6)]
    await store.enqueue_tasks(items, now_us=20)
    page: dict[str, Any] = {"status": None, "session_id": None, "before": None, "limit": 4}
    first = await store.list_tasks(None, **page)
    assert [t.turn_id for t in first] == ["t5", "t4", "t3", "t2"]
    rest = await store.list_tasks(None, **{**page, "before": (first[-1].created_us, first[-1].turn_id)})
    assert [t.turn_id for t in rest] == ["t1", "t0"]
    assert [t.turn_id for t in await store.list_tasks(UserId("ada"), **page)] == ["t5", "t3", "t1"]
    assert await store.list_tasks(None, **{**page, "status": "running"}) == []
    assert [t.turn_id for t in await store.list_tasks(None, **{**page, "session_id": SessionId("s-t2")})] == ["t2"]


async def test_depths_and_ages(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new(f"t{n}", "ada" if n else "bob", created_us=100 + n) for n in range(4)], now_us=20)
    depth = await store.queue_depth([UserId("ada"), UserId("bob"), UserId("cleo")], most=10)
    assert (depth.total, depth.by_user) == (4, {"ada": 3, "bob": 1, "cleo": 0})
    assert (await store.queue_depth([UserId("ada")], most=2)).by_user == {"ada": 2}
    await pool(store)
    await claim(store, 1)
    states = await store.queue_states()
    assert states["queued"][0] == 3
    assert states["running"] == (1, 100)


async def test_the_place_of_a_task_is_the_one_in_which_it_is_claimed(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new(f"a{n}", "ada") for n in range(5)], now_us=20)
    await store.enqueue_tasks([new("b0", "bob"), new("c0", "cleo", priority=5)], now_us=21)
    await store.enqueue_tasks([new("behind", session="s-a0", create=False, created_us=11)], now_us=22)
    await store.enqueue_tasks([new("later", run_at_us=500)], now_us=23)
    names = ["c0", "b0", *(f"a{n}" for n in range(5))]
    places = {name: await store.queue_position(TurnId(name), most=10) for name in names}
    assert await store.queue_position(TurnId("a4"), most=6) is None, "too far behind"
    for name in ("behind", "later", "none"):
        assert await store.queue_position(TurnId(name), most=10) is None, f"{name} is not for the pools"
    await pool(store)
    order = turns([(await claim(store, 1))[0] for _ in names])
    assert places == {name: place for place, name in enumerate(order, start=1)}
    assert await store.queue_position(TurnId("a4"), most=10) is None, "it runs"


@pytest.mark.parametrize("ends", ["succeeded", "failed", "cancelled", "dead"])
async def test_every_end_is_kept(store: AsyncStorageBackend, ends: Any) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (claimed,) = await claim(store)
    assert await store.finish_and_leave([finished(claimed, ends)]) == [True]
    task: TaskRecord | None = await store.get_task(TurnId("t1"))
    assert task is not None
    assert task.status == ends
