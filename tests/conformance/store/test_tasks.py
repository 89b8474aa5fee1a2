"""Turns: accepted once, running one at a time, completed at most once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from storage.errors import Conflict
from storage.records import TaskRecord, TurnId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make

T1 = TurnId("t1")
Stores = tuple[AsyncStorageBackend, AsyncStorageBackend]


async def get(store: AsyncStorageBackend, turn: str = "t1") -> TaskRecord:
    found = await store.get_task(TurnId(turn))
    assert found is not None
    return found


async def test_a_turn_is_accepted_running_with_its_message(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    task = make.task(idempotency_key="k")
    accepted = await store.accept_turn(fence, task, messages=[make.message(0)], events=[make.event(1)])
    assert accepted.duplicate is None
    stored = await get(store)
    assert stored == msgspec.structs.replace(task, attempt=1, started_us=10, attempt_started_us=10)
    assert await store.find_idempotent(make.USER, "k") == stored
    assert await store.active_task(make.SESSION) == stored
    assert await store.load_messages(make.SESSION, limit=9) == [make.message(0)]
    assert await store.last_event_seq(make.SESSION) == 1
    assert await store.running_tasks() == [(T1, make.SESSION, make.USER, make.OWNER)]


async def test_accepting_again_is_harmless(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    for _ in range(2):
        await make.accept(store, fence, make.task(idempotency_key="k"), make.message(0))
    stored = await store.get_session(make.SESSION)
    assert stored is not None
    assert stored.message_count == 1


async def test_an_idempotency_key_gives_the_earlier_task_and_writes_nothing(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task(idempotency_key="k"), make.message(0))
    before = await store.get_session(make.SESSION)
    second = make.task("t2", "queued", idempotency_key="k", created_us=77)
    accepted = await store.accept_turn(
        fence, second, messages=[make.message(1, "t2", created_us=77)], events=[make.event(2)]
    )
    assert accepted.duplicate == await get(store)
    assert await store.get_task(TurnId("t2")) is None
    assert await store.load_messages(make.SESSION, limit=9) == [make.message(0)]
    assert await store.last_event_seq(make.SESSION) == 0
    assert await store.get_session(make.SESSION) == before


async def test_a_key_belongs_to_its_user_and_is_forgotten_after_a_time(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task(idempotency_key="k"))
    await make.accept(store, fence, make.task("t2", "queued", user_id="u2", idempotency_key="k"))
    assert await store.forget_idempotency_keys(1000) == 0
    assert await make.finish(store, fence)
    assert await store.forget_idempotency_keys(99) == 0
    assert await store.forget_idempotency_keys(100) == 1
    assert await store.find_idempotent(make.USER, "k") is None


async def test_concurrent_turns_with_one_key_become_one(two_stores: Stores) -> None:
    fences = [await make.fence(two_stores[0], f"s{n}") for n in range(6)]

    async def accept(number: int) -> TurnId | None:
        task = make.task(f"t{number}", "queued", session_id=f"s{number}", idempotency_key="k")
        accepted = await two_stores[number % 2].accept_turn(fences[number], task, messages=[], events=[])
        return accepted.duplicate.turn_id if accepted.duplicate else None

    answers = await asyncio.gather(*(accept(number) for number in range(6)))
    winner = await two_stores[0].find_idempotent(make.USER, "k")
    assert winner is not None
    assert sorted(answers, key=str) == sorted([None, *[winner.turn_id] * 5], key=str)


async def test_one_turn_of_a_session_runs(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task())
    with pytest.raises(Conflict):
        await store.accept_turn(fence, make.task("t2"), messages=[make.message(0, "t2")], events=[])
    await make.accept(store, fence, make.task("t3", "queued"))
    with pytest.raises(Conflict):
        await store.start_turn(fence, TurnId("t3"), messages=[], events=[], now_us=20)
    assert (await get(store, "t3")).status == "queued"
    assert await store.load_messages(make.SESSION, limit=9) == []


async def test_a_queued_turn_starts_once(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task(status="queued"))
    assert (await get(store)).attempt == 0
    started = await store.start_turn(fence, T1, messages=[make.message(0)], events=[make.event(1)], now_us=20)
    assert started is not None
    assert (started.status, started.attempt, started.started_us) == ("running", 1, 20)
    assert await store.start_turn(fence, T1, messages=[make.message(1)], events=[], now_us=21) is None
    assert await store.load_messages(make.SESSION, limit=9) == [make.message(0)]


async def test_of_concurrent_starts_one_gets_the_turn(two_stores: Stores) -> None:
    fence = await make.fence(two_stores[0])
    await make.accept(two_stores[0], fence, make.task(status="queued"))
    started = await asyncio.gather(
        *(two_stores[n % 2].start_turn(fence, T1, messages=[], events=[], now_us=n) for n in range(6))
    )
    assert sum(task is not None for task in started) == 1
    assert (await get(two_stores[1])).attempt == 1


async def test_a_cancelled_queued_turn_does_not_start(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task(status="queued"))
    marked = await store.request_cancel(T1)
    assert marked is not None
    assert marked.cancel_requested
    assert await store.start_turn(fence, T1, messages=[], events=[], now_us=20) is None
    assert await make.finish(store, fence, attempt=0, status="cancelled", answer=None)
    assert await store.request_cancel(TurnId("none")) is None


async def test_a_round_is_recorded_for_the_running_attempt_only(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task())
    for _ in range(2):
        assert await store.commit_round(
            fence, T1, 1, round=1, messages=[make.message(0, round=1, created_us=30)], events=[make.event(1)]
        )
    assert not await store.commit_round(fence, T1, 2, round=2, messages=[make.message(1)], events=[])
    assert not await store.commit_round(fence, TurnId("none"), 1, round=2, messages=[], events=[make.event(2)])
    assert (await get(store)).last_round == 1
    session = await store.get_session(make.SESSION)
    assert session is not None
    assert (session.message_count, session.updated_us) == (1, 30)
    assert await store.last_event_seq(make.SESSION) == 1


async def test_another_message_at_a_taken_position_is_refused_whole(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task(), make.message(0))
    with pytest.raises(Conflict):
        await store.commit_round(fence, T1, 1, round=5, messages=[make.message(0, body=b"{}")], events=[make.event(1)])
    assert (await get(store)).last_round == 0
    assert await store.last_event_seq(make.SESSION) == 0


async def test_resuming_is_a_new_attempt_and_fences_the_old_one(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task())
    resumed = await store.resume_turn(fence, T1, now_us=20)
    assert resumed is not None
    assert (resumed.attempt, resumed.crashes, resumed.started_us) == (2, 1, 10)
    assert not await make.finish(store, fence, attempt=1)
    assert await make.finish(store, fence, attempt=2)
    assert await store.resume_turn(fence, T1, now_us=21) is None


async def test_a_completion_is_whole_and_repeatable(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task(), make.message(0))
    last = {"messages": [make.message(1, role="assistant")], "events": [make.event(1, "finished")]}
    assert await make.finish(store, fence, **last)
    assert await make.finish(store, fence, **last)
    assert not await make.finish(store, fence, status="failed")
    assert not await make.finish(store, fence, attempt=2)
    done = await get(store)
    assert (done.status, done.answer, done.usage, done.stop_reason, done.finished_us) == (
        "succeeded", "yes", b'{"tokens":1}', "stop", 99,
    )  # fmt: skip
    session = await store.get_session(make.SESSION)
    assert session is not None
    assert (session.message_count, session.updated_us) == (2, 99)
    assert await store.active_task(make.SESSION) is None
    assert await store.running_tasks() == []


async def test_a_failure_keeps_its_error(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task())
    assert await make.finish(store, fence, status="failed", answer=None, error=b'{"code":"X"}', usage=None)
    done = await get(store)
    assert (done.status, done.error, done.usage) == ("failed", b'{"code":"X"}', None)


async def test_a_requested_cancel_rules_out_success(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task())
    await store.request_cancel(T1)
    assert not await make.finish(store, fence, messages=[make.message(0)])
    assert await store.load_messages(make.SESSION, limit=9) == []
    assert await make.finish(store, fence, status="cancelled")
    after = await store.request_cancel(T1)
    assert after is not None
    assert after.status == "cancelled"


async def test_cancel_and_success_race_to_one_outcome(two_stores: Stores) -> None:
    fence = await make.fence(two_stores[0])
    for number in range(20):
        turn = f"t{number}"
        await make.accept(two_stores[0], fence, make.task(turn))
        finished, asked = await asyncio.gather(
            make.finish(two_stores[0], fence, turn), two_stores[1].request_cancel(TurnId(turn))
        )
        assert asked is not None
        assert finished != asked.cancel_requested
        if not finished:
            assert await make.finish(two_stores[0], fence, turn, status="cancelled")


async def test_the_active_task_is_the_running_one_else_the_oldest(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    assert await store.active_task(make.SESSION) is None
    await make.accept(store, fence, make.task("t2", "queued", created_us=20))
    await make.accept(store, fence, make.task("t3", "queued", created_us=15))
    assert (await store.active_task(make.SESSION) or make.task()).turn_id == "t3"
    await make.accept(store, fence, make.task("t4", created_us=30))
    assert (await store.active_task(make.SESSION) or make.task()).turn_id == "t4"
