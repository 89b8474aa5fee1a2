"""Child tasks: a turn that waits keeps its place, and is due when the last awaited child has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.children import person
from storage.errors import StaleEpoch
from storage.records import ClaimedTask, Fence, OwnerId, SessionId, TurnId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.test_task_queue import claim, finished, new, pool, turns

PARENT = TurnId("p1")
FAR_US = 10**15


async def started(store: AsyncStorageBackend) -> ClaimedTask:
    """A parent that runs."""
    await pool(store)
    await store.enqueue_tasks([new(PARENT)], now_us=20)
    (claimed,) = await claim(store)
    return claimed


async def children(store: AsyncStorageBackend, *names: str) -> list[TurnId]:
    items = [new(name, parent_id=PARENT, depth=1, created_us=10 + i) for i, name in enumerate(names)]
    await store.enqueue_tasks(items, now_us=21)
    return [item.task.turn_id for item in items]


async def suspend(store: AsyncStorageBackend, parent: ClaimedTask, *names: str, **changed: Any) -> bool:
    session = parent.opened.session
    fence = changed.get("fence", Fence(session.session_id, session.epoch))
    event = make.event(parent.opened.first_seq, "turn_waiting", session_id=session.session_id, turn_id=PARENT)
    return await store.suspend_turn(
        fence,
        parent.task,
        waits_for=changed.get("waits_for", " ".join(names)),
        shown=b'{"agents":[]}',
        until_us=changed.get("until_us", FAR_US),
        events=[event],
        now_us=30,
    )


async def left(store: AsyncStorageBackend, parent: ClaimedTask) -> None:
    session = parent.opened.session
    fence = Fence(session.session_id, session.epoch)
    await store.close_session(fence, last_seq=parent.opened.first_seq, now_us=31)


async def test_children_are_recorded_with_their_parent(store: AsyncStorageBackend) -> None:
    await started(store)
    await children(store, "b", "a")
    found = await store.list_children(PARENT, limit=9)
    assert [(c.turn_id, c.parent_id, c.depth) for c in found] == [("b", PARENT, 1), ("a", PARENT, 1)]
    assert len(await store.list_children(PARENT, limit=1)) == 1
    (first,) = await claim(store, 1)
    await store.finish_and_leave([finished(first)])
    other = "a" if first.task.turn_id == "b" else "b"
    assert await store.cancel_children(PARENT) == [(other, f"s-{other}")]
    cancelled = await store.get_task(TurnId(other))
    assert cancelled is not None
    assert cancelled.cancel_requested


async def test_a_turn_that_waits_is_not_claimed_before_it_may(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    await children(store, "a", "b")
    assert await suspend(store, parent, "a", "b")
    await left(store, parent)
    stored = await store.get_task(PARENT)
    assert stored is not None
    assert (stored.status, stored.shown_status, stored.waits_for) == ("queued", "waiting", "a b")
    assert await store.queue_states() == {"queued": (2, 10), "waiting": (1, 10)}
    assert (await store.queue_depth([make.USER], most=9)).total == 2
    claimed = await claim(store)
    assert sorted(turns(claimed)) == ["a", "b"]
    await store.finish_and_leave([finished(claimed[0])])
    assert await store.end_wait(PARENT, now_us=40) is None
    await store.finish_and_leave([finished(claimed[1])])
    assert await store.end_wait(PARENT, now_us=40) == parent.task.session_id
    assert await store.end_wait(PARENT, now_us=40) is None
    assert await store.promote_due(limit=9, now_us=41) == [(parent.task.session_id, None)]
    (again,) = await claim(store)
    assert (again.task.turn_id, again.task.attempt, again.task.crashes) == (PARENT, 2, 0)
    assert (again.task.waits_for, again.task.run_at_us) == (None, None)


async def test_only_awaited_children_are_waited_for(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    await children(store, "a", "b")
    assert await suspend(store, parent, "a")
    (first,) = [c for c in await claim(store) if c.task.turn_id == "a"]
    await store.finish_and_leave([finished(first)])
    assert await store.end_wait(PARENT, now_us=40) is not None


async def test_patience_ends(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    await children(store, "a")
    assert await suspend(store, parent, "a", until_us=60)
    await left(store, parent)
    assert await store.promote_due(limit=9, now_us=59) == []
    assert await store.next_due() == 60
    assert len(await store.promote_due(limit=9, now_us=60)) == 1
    assert PARENT in turns(await claim(store))


async def test_the_sweep_finds_those_whose_waker_died(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    await children(store, "a")
    assert await suspend(store, parent, "a")
    assert await store.end_waits(now_us=40) == 0
    (child,) = await claim(store)
    await store.finish_and_leave([finished(child)])
    assert await store.end_waits(now_us=40) == 1
    assert await store.end_waits(now_us=40) == 0


async def test_a_turn_whose_cancel_was_requested_does_not_wait(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    await children(store, "a")
    await store.request_cancel(PARENT)
    assert not await suspend(store, parent, "a")
    assert (
        await store.read_events(parent.task.session_id, after=parent.opened.first_seq - 1, limit=9, max_bytes=9) == []
    )


async def test_only_the_owner_suspends(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    session = parent.opened.session
    with pytest.raises(StaleEpoch):
        await suspend(store, parent, "a", fence=Fence(session.session_id, session.epoch - 1))
    stored = await store.get_task(PARENT)
    assert stored is not None
    assert stored.status == "running"


async def test_a_turn_that_waits_keeps_its_place_in_its_session(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    await children(store, "a")
    await store.enqueue_tasks([new("next", session=parent.task.session_id, create=False)], now_us=25)
    assert await suspend(store, parent, "a")
    await left(store, parent)
    assert turns(await claim(store)) == ["a"]
    opened = await store.open_session(parent.task.session_id, await pool(store), seq_block=64, now_us=60)
    assert [task.turn_id for task in opened.queued] == [PARENT, "next"]


@pytest.mark.parametrize("end", ["failed", "cancelled", "interrupted", "dead", "succeeded"])
async def test_children_without_a_parent_are_found(store: AsyncStorageBackend, end: str) -> None:
    parent = await started(store)
    await children(store, "a", "b")
    assert await store.stray_children(limit=9) == []
    await store.finish_and_leave([finished(parent, end)])
    expected = [] if end == "succeeded" else [(TurnId("a"), SessionId("s-a")), (TurnId("b"), SessionId("s-b"))]
    assert await store.stray_children(limit=9) == expected
    for child in await claim(store):
        await store.finish_and_leave([finished(child, "cancelled")])
    assert await store.stray_children(limit=9) == []


async def test_trying_again_forgets_the_wait(store: AsyncStorageBackend) -> None:
    parent = await started(store)
    await children(store, "a")
    assert await suspend(store, parent, "a")
    session = parent.opened.session
    await store.finish_turn(
        Fence(session.session_id, session.epoch), PARENT, 1, status="dead", answer=None, error=None, usage=None,
        stop_reason="dead", messages=[], events=[], now_us=50,
    )  # fmt: skip
    requeued = await store.requeue_task(PARENT, now_us=60)
    assert requeued.task is not None
    assert requeued.task.shown_status == "queued"


async def test_the_last_child_and_the_wait_at_the_same_moment(store: AsyncStorageBackend) -> None:
    """Whichever comes second finds the other: the parent never waits for a child that has ended."""
    for n in range(30):
        await pool(store)
        name, parent_id = f"c{n}", TurnId(f"p{n}")
        await store.enqueue_tasks([new(parent_id)], now_us=20)
        (parent,) = await claim(store)
        await store.enqueue_tasks([new(name, parent_id=parent_id, depth=1)], now_us=21)
        (child,) = await claim(store)

        async def wait(parent: ClaimedTask = parent, name: str = name) -> None:
            fence = Fence(parent.task.session_id, parent.opened.session.epoch)
            await store.suspend_turn(
                fence, parent.task, waits_for=name, shown=b"{}", until_us=FAR_US, events=[], now_us=30
            )
            await store.end_wait(parent.task.turn_id, now_us=31)

        async def end(child: ClaimedTask = child, parent_id: TurnId = parent_id) -> None:
            await store.finish_and_leave([finished(child)])
            await store.end_wait(parent_id, now_us=31)

        await asyncio.gather(wait(), end())
        stored = await store.get_task(parent_id)
        assert stored is not None
        assert stored.shown_status == "queued", f"try {n}: it waits for ever"


async def asked(store: AsyncStorageBackend) -> ClaimedTask:
    """A turn that waits for a person, and has left its session."""
    parent = await started(store)
    assert await suspend(store, parent, waits_for=person("call 1"))
    await left(store, parent)
    return parent


async def test_a_persons_answer_lets_the_turn_go_on(store: AsyncStorageBackend) -> None:
    parent = await asked(store)
    assert await store.end_waits(now_us=40) == 0, "it waits for no child"
    stored = await store.get_task(PARENT)
    assert stored is not None
    assert (stored.shown_status, stored.waiting) == ("waiting", b'{"agents":[]}')
    assert await store.find_reply(PARENT, "call 1") is None
    other = await store.answer_turn(stored, "call 2", b'"no"', user_id=make.USER, now_us=41)
    assert other.task is None
    answered = await store.answer_turn(stored, "call 1", b'"yes"', user_id=make.USER, now_us=41)
    assert answered.task is not None
    assert (answered.task.shown_status, answered.owner_id) == ("queued", None)
    assert await store.find_reply(PARENT, "call 1") == b'"yes"'
    assert turns(await claim(store)) == [PARENT]
    again = await store.answer_turn(stored, "call 1", b'"late"', user_id=make.USER, now_us=42)
    assert again.task is None
    assert await store.find_reply(PARENT, "call 1") == b'"yes"'
    await store.delete_session(parent.task.session_id)
    assert await store.find_reply(PARENT, "call 1") is None


async def test_of_two_answers_one_counts(store: AsyncStorageBackend) -> None:
    parent = await asked(store)
    both = await asyncio.gather(
        *(store.answer_turn(parent.task, "call 1", text, user_id=make.USER, now_us=41) for text in (b'"a"', b'"b"'))
    )
    assert [answer.task is not None for answer in both].count(True) == 1
    assert await store.find_reply(PARENT, "call 1") == (b'"a"' if both[0].task else b'"b"')


async def test_the_live_owner_of_an_answered_turn_is_named(store: AsyncStorageBackend) -> None:
    parent = await asked(store)
    owner = await pool(store, OwnerId("actor"))
    await store.open_session(parent.task.session_id, owner, seq_block=64, now_us=60)
    answered = await store.answer_turn(parent.task, "call 1", b'"yes"', user_id=make.USER, now_us=61)
    assert answered.owner_id == owner
    assert await claim(store) == []
