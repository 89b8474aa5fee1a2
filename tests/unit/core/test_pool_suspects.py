"""Tasks whose process died: a pool runs one of them at a time, so that the one which is why takes no other along."""

from __future__ import annotations

from actors.messages import Wake
from storage.records import OwnerId, SessionId
from tests.support.facts import eventually
from tests.support.pool_bench import Make, PoolBench


async def crashed(found: PoolBench, *names: str) -> None:
    """Tasks that ran in a process which died."""
    await found.enqueue(*names)
    dying, now_us = OwnerId("dying"), found.clock.now_us()
    await found.real.register_owner(dying, "node-0", lease_s=60)
    claimed = await found.real.claim_tasks(dying, limit=len(names), seq_block=64, now_us=now_us)
    assert len(claimed) == len(names)
    await found.real.expire_owner(dying)
    for name in names:
        assert await found.real.release_orphan(SessionId(f"s-{name}"), now_us=now_us)


async def test_tasks_whose_process_died_run_one_at_a_time_beside_others(pool_bench: Make) -> None:
    found = await pool_bench(max_workers=8)
    suspects = ["p", "q", "r"]
    await crashed(found, *suspects)
    await found.enqueue("a", "b")
    await found.tell(Wake())
    await eventually(lambda: len(found.model.running) == 3, "one of them runs, and the others")
    most = 0
    for turn in suspects:
        await found.tell(Wake())
        await eventually(lambda turn=turn: turn in found.model.running, f"{turn} runs")  # type: ignore[misc]
        most = max(most, sum(name in suspects for name in found.model.running))
        found.model.let(turn)
        await found.ended(turn)
    assert most == 1
    assert found.model.most == 3
    found.model.let()
    await found.ended("a", "b")
    assert [(await found.task(turn)).crashes for turn in [*suspects, "a"]] == [1, 1, 1, 0]


async def test_one_that_goes_on_crashing_is_given_up_alone(pool_bench: Make) -> None:
    """Every death counts for what ran then: the poison, one suspect at a time, and no innocent twice."""
    found = await pool_bench(max_workers=8)
    innocents = ["q", "r"]
    await crashed(found, "p", *innocents)
    found.model.let(*innocents)
    for n in range(found.settings.sessions.max_crashes):
        await found.tell(Wake())
        await eventually(lambda: "p" in found.model.running, "the poison runs")
        await found.pool.crash()
        owner = found.pool._host.owner_id
        await found.real.expire_owner(owner)
        assert await found.real.release_orphan(SessionId("s-p"), now_us=found.clock.now_us()), n
        found.replace_pool()
        await found.pool.start()
    await found.tell(Wake())
    await found.ended("p", status="dead")
    await found.ended(*innocents)
    assert [(await found.task(turn)).crashes for turn in innocents] == [1, 1]


async def test_upkeep_does_not_take_up_what_the_pool_is_about_to_run(pool_bench: Make) -> None:
    found = await pool_bench()
    await crashed(found, "p")
    gate = found.store.hold("read_events")
    await found.tell(Wake())
    await found.store.at_gate.wait()
    await found.pool._host._upkeep.run_once()
    gate.set()
    found.model.let()
    await found.ended("p")
    task = await found.task("p")
    assert (task.attempt, task.crashes) == (2, 1)
