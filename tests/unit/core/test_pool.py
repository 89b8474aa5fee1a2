"""The worker pool: claims for its free slots and no more, wakes, drains, gives up, and knows when tasks are due."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.errors import ServiceUnavailable
from actors.handles import ask
from actors.histogram import TASK_SECONDS
from actors.messages import Describe, Drain, OpenSession, PickUp, RegisterActor, Wake
from actors.models.upstream_errors import UpstreamOverloaded
from actors.replies import Description, Draining
from storage.errors import Conflict, StorageUnavailable
from storage.records import SessionId
from tests.support.facts import eventually
from tests.support.pool_bench import Make, PoolBench


@pytest.fixture
def bench(pool_bench: Make) -> Make:
    return pool_bench


def limits(found: PoolBench) -> list[int]:
    """Records for how many tasks the pool asks from now on."""
    asked: list[int] = []
    real = found.store.claim_tasks

    async def claim(*args: Any, limit: int, **kwargs: Any) -> Any:
        asked.append(limit)
        return await real(*args, limit=limit, **kwargs)

    setattr(found.store, "claim_tasks", claim)  # noqa: B010
    return asked


async def test_it_registers_as_a_pool(bench: Make) -> None:
    found = await bench()
    assert found.directory.directory._placement.pools() == ["pool-1"]


async def test_it_claims_for_its_free_slots_and_no_more(bench: Make) -> None:
    found = await bench(max_workers=2, claim_batch=32)
    asked = limits(found)
    names = [f"t{n}" for n in range(5)]
    await found.enqueue(*names)
    await found.tell(Wake())
    await eventually(lambda: len(found.model.running) == 2, "two of them run")
    await found.tell(Wake())
    assert (await found.real.queue_states())["queued"][0] == 3
    assert (await found.gauges())["pool_slots_in_use"] == 2
    found.model.let("t0")
    await eventually(lambda: "t2" in found.model.running, "the slot is used again")
    found.model.let()
    await found.ended(*names)
    assert found.model.most == 2
    assert max(asked) == 2
    assert asked[1] == 1, "one slot was free"


async def test_more_slots_than_a_batch_are_filled_by_several_claims(bench: Make) -> None:
    found = await bench(max_workers=10, claim_batch=3)
    asked = limits(found)
    await found.enqueue(*(f"t{n}" for n in range(8)))
    await found.tell(Wake())
    await eventually(lambda: len(found.model.running) == 8, "all of them run")
    await eventually(lambda: len(asked) == 3, "the last claim was not a full one")
    assert asked == [3, 3, 3]


async def test_a_wake_while_it_claims_is_not_lost(bench: Make) -> None:
    found = await bench()
    gate = found.store.hold("claim_tasks")
    await found.tell(Wake())
    await found.store.at_gate.wait()
    await found.tell(Wake())
    gate.set()
    calls = found.store.calls["claim_tasks"]
    await eventually(lambda: found.store.calls["claim_tasks"] > calls, "it looks once more")


async def test_an_idle_pool_does_not_ask_again_and_again(bench: Make) -> None:
    found = await bench()
    await found.enqueue("t")
    await found.tell(Wake())
    found.model.let()
    await found.ended("t")
    await eventually(lambda: found.pool.counts.finished == 1, "the slot is free")
    before = found.pool.counts.claims
    await found.enqueue("u")
    await found.tell(Wake())
    await found.ended("u")
    assert found.pool.counts.claims - before <= 3, "for the wake, and for the slots that became free"


async def test_what_it_did_is_counted(bench: Make) -> None:
    found = await bench()
    await found.enqueue("t")
    found.clock.advance(3.0)
    await found.tell(Wake())
    await eventually(lambda: found.model.running, "it runs")
    found.clock.advance(2.0)
    found.model.let()
    await found.ended("t")
    await eventually(lambda: found.pool.counts.finished == 1, "the slot is free")
    description = await ask(found.pool.handle, Describe(), Description)
    gauges, histograms = description.gauges, description.histograms
    for name, seconds in (("wunder_task_wait_seconds", 3.0), ("wunder_task_run_seconds", 2.0)):
        assert histograms[name].sum_s == pytest.approx(seconds)
        counts = dict(zip(TASK_SECONDS, histograms[name].counts, strict=False))
        assert (counts[1.0], counts[5.0], histograms[name].counts[-1]) == (0, 1, 1)
    assert (gauges["pool_claimed"], gauges["pool_finished"], gauges["turns_succeeded"]) == (1, 1, 1)


async def test_retries_and_dead_tasks_are_counted(bench: Make) -> None:
    found = await bench()
    found.model.failures = [UpstreamOverloaded("away") for _ in range(2)]
    found.model.let()
    await found.enqueue("t", max_attempts=2)
    await found.tell(Wake())
    await eventually(lambda: found.pool.counts.finished == 1, "the first attempt failed")
    assert (await found.task("t")).status == "queued"
    found.clock.advance(1.0)
    await found.tell(Wake())
    await found.ended("t", status="dead")
    gauges = await found.gauges()
    assert (gauges["turns_retried"], gauges["turns_dead"], gauges["turns_succeeded"]) == (1, 1, 0)


async def test_a_draining_pool_claims_nothing_and_lets_its_tasks_finish(bench: Make) -> None:
    found = await bench(max_workers=2)
    await found.enqueue("t")
    await found.tell(Wake())
    await eventually(lambda: found.model.running, "it runs")
    draining = asyncio.create_task(found.tell(Drain(grace_s=30.0)))
    await asyncio.sleep(0)
    await found.enqueue("u")
    await found.tell(Wake())
    assert not draining.done()
    found.model.let()
    await draining
    await found.ended("t")
    assert (await found.task("u")).status == "queued"


async def test_what_does_not_end_in_time_goes_on_elsewhere(bench: Make) -> None:
    found = await bench()
    await found.enqueue("t")
    await found.tell(Wake())
    await eventually(lambda: found.model.running, "it runs")
    await found.tell(Drain(grace_s=0.001))
    await eventually(lambda: not found.model.running, "it was cut off")

    async def orphaned() -> bool:
        sessions = await found.real.orphaned_sessions(limit=10, now_us=found.clock.now_us(), ready=False)
        return sessions == ["s-t"]

    await eventually(orphaned, "the sweep can find it")
    assert (await found.task("t")).status == "running"


async def test_a_pool_that_loses_its_lease_gives_everything_up_and_comes_back(bench: Make) -> None:
    found = await bench()
    await found.enqueue("t")
    await found.tell(Wake())
    await eventually(lambda: found.model.running, "it runs")
    lease = found.pool._host._lease
    before = lease.owner_id
    found.clock.advance(found.settings.sessions.lease_stop_s + 1)
    await lease.watch_once()
    await eventually(lambda: not found.model.running, "nothing runs any more")
    await eventually(lambda: lease.owner_id not in ("", before), "it registered again")
    await eventually(lambda: found.pool.counts.finished == 1, "the slot is free")
    task = await found.task("t")
    assert (task.status, task.attempt) == ("running", 1), "nothing was written under the lost lease"
    found.model.let()
    await found.enqueue("u")
    await found.tell(Wake())
    await found.ended("u")


async def test_without_a_lease_it_claims_nothing(bench: Make) -> None:
    found = await bench()
    lease = found.pool._host._lease
    gate = found.store.hold("register_owner")
    found.clock.advance(found.settings.sessions.lease_stop_s + 1)
    await lease.watch_once()
    calls = found.store.calls["claim_tasks"]
    await found.pool.claim_once()
    assert found.store.calls["claim_tasks"] == calls
    gate.set()


async def test_one_end_that_the_database_refuses_does_not_spoil_the_others(bench: Make) -> None:
    found = await bench()
    real, groups = found.store.finish_and_leave, []
    gate = asyncio.Event()

    async def finish(turns: Any) -> Any:
        groups.append(sorted(turn.end.turn_id for turn in turns))
        await gate.wait()
        if any(turn.end.turn_id == "poison" for turn in turns):
            raise Conflict("the database refused the write")
        return await real(turns)

    setattr(found.store, "finish_and_leave", finish)  # noqa: B010
    await found.enqueue("first", "a", "b", "poison")
    await found.tell(Wake())
    found.model.let("first")
    await eventually(lambda: groups == [["first"]], "the first end is under way")
    found.model.let()
    await eventually(lambda: len(found.pool._finishes) == 3, "the others gather meanwhile")
    gate.set()
    await found.ended("first", "a", "b")
    assert groups[1] == ["a", "b", "poison"]
    assert sorted(map(tuple, groups[2:]))[:3] == [("a",), ("b",), ("poison",)]


async def test_an_end_that_the_database_could_not_take_is_recorded_again(bench: Make) -> None:
    found = await bench()
    found.store.fail("finish_and_leave", times=1, error=StorageUnavailable("away"))
    await found.enqueue("t")
    found.model.let()
    await found.tell(Wake())
    await found.ended("t")
    assert found.store.calls["finish_and_leave"] == 2
    assert found.model.started == ["t"], "the turn itself is not run again"


async def test_the_next_of_a_session_is_claimed_when_the_one_before_has_ended(bench: Make) -> None:
    found = await bench()
    await found.enqueue("a", session="s")
    await found.enqueue("b", session="s")
    await found.tell(Wake())
    await eventually(lambda: found.model.running == ["a"], "the first runs alone")
    found.model.let()
    await found.ended("a", "b")
    assert found.model.started == ["a", "b"]


async def test_a_task_starts_when_its_time_has_come(bench: Make) -> None:
    found = await bench()
    found.model.let()
    await found.enqueue("t", run_at_us=found.clock.now_us() + 60_000_000)
    await found.tell(Wake())
    await eventually(lambda: found.pool._timer is not None, "it knows when to look again")
    assert (await found.task("t")).status == "queued"
    found.clock.advance(60.0)
    await found.pool.promote_once()
    await found.ended("t")


async def test_the_timer_looks_again_by_itself(bench: Make) -> None:
    found = await bench()
    found.model.let()
    await found.enqueue("t", run_at_us=found.clock.now_us() + 20_000)
    await found.tell(Wake())
    await eventually(lambda: found.pool._timer is not None, "it knows when to look again")
    found.clock.advance(0.02)
    await found.ended("t")


async def test_what_is_due_later_than_the_next_look_needs_no_timer(bench: Make) -> None:
    found = await bench(poll_interval_ms=100.0)
    await found.enqueue("t", run_at_us=found.clock.now_us() + 60_000_000)
    await found.pool.promote_once()
    assert found.pool._timer is None


async def test_the_owner_of_a_session_is_told_that_a_task_of_it_is_due(bench: Make) -> None:
    found = await bench()
    reach = found.directory.reach
    await found.enqueue("t", run_at_us=found.clock.now_us() + 1_000_000)
    owner = await _open_elsewhere(found, "s-t")
    found.clock.advance(1.0)
    await found.pool.promote_once()
    await eventually(lambda: reach.heard("host-9", PickUp), "its owner is told")
    assert (await found.task("t")).status == "queued"
    assert not found.model.started
    await found.real.expire_owner(owner)


async def _open_elsewhere(found: PoolBench, session: str) -> Any:
    owner: Any = "own-host-9"
    await found.real.register_owner(owner, "node-0", lease_s=60)
    await found.real.open_session(SessionId(session), owner, seq_block=64, now_us=found.clock.now_us())
    await found.directory.handle.register_actor(
        RegisterActor(actor="host-9", node_id="node-0", owner_id=owner, sessions=(SessionId(session),))
    )
    return owner


async def test_a_claim_whose_answer_was_lost_is_found_out(bench: Make) -> None:
    found = await bench()
    real = found.store.claim_tasks
    lost: list[int] = []

    async def claim(*args: Any, **kwargs: Any) -> Any:
        claimed = await real(*args, **kwargs)
        if claimed and not lost:
            lost.append(len(claimed))
            raise StorageUnavailable("the answer was lost")
        return claimed

    setattr(found.store, "claim_tasks", claim)  # noqa: B010
    await found.enqueue("t")
    await found.tell(Wake())
    await eventually(lambda: lost, "it was claimed")
    await found.tell(Wake())

    async def orphaned() -> bool:
        return bool(await found.real.orphaned_sessions(limit=10, now_us=found.clock.now_us(), ready=False))

    await eventually(orphaned, "the sweep can find it")
    assert not found.model.started


async def test_no_session_is_placed_on_it(bench: Make) -> None:
    found = await bench()
    assert found.directory.directory._placement.choose(None) is None
    with pytest.raises(ServiceUnavailable):
        await found.tell(OpenSession(session_id=SessionId("s")))


async def test_a_wake_is_answered_with_how_fast_it_is(bench: Make) -> None:
    found = await bench(max_workers=1)
    assert (await ask(found.pool.handle, Wake(), Draining)).per_s is None
    names = [f"t{n}" for n in range(6)]
    await found.enqueue(*names)
    await found.tell(Wake())
    for name in names:
        await eventually(lambda name=name: name in found.model.running, f"{name} runs")  # type: ignore[misc]
        found.clock.advance(2.0)
        found.model.let(name)
    await found.ended(*names)
    found.clock.advance(60.0)
    answer = await ask(found.pool.handle, Wake(), Draining)
    assert answer.per_s == pytest.approx(0.5, rel=0.2)
    handle = found.directory.handle
    assert await handle.wake_pools() is None, "the directory has not heard of it yet"

    async def known() -> bool:
        return await handle.wake_pools() == answer.per_s

    found.directory.reach.answers["pool-1"] = lambda _: answer
    await eventually(known, "the directory tells what the pools have told")
