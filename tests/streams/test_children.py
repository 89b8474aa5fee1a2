"""Agents that agents have started: waiting holds nothing, results come back, cancels cascade, crashes lose nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.streams.scene import Scene
from tests.streams.test_tasks import Make, call, ended, inspect, submit
from tests.support.facts import eventually

QUEUE = {"poll_interval_ms": 200.0, "retry_base_ms": 1.0}
AGENTS = ["spawn_agent", "wait_agents", "send_to_agent"]


async def world_of(scene: Make, pools: int = 1, **sections: Any) -> Scene:
    world = await scene(agent_queue={**QUEUE, **sections.pop("agent_queue", {})}, **sections)
    for _ in range(pools):
        await world.cluster.start_pool()
    return world


async def waiting(world: Scene, task: dict[str, Any]) -> dict[str, Any]:
    """The task once it waits for its children."""
    found: dict[str, Any] = {}

    async def waits() -> bool:
        found.update(await inspect(world, task))
        assert found["status"] in ("queued", "running", "waiting"), found
        return found["status"] == "waiting"

    await eventually(waits, "the task waits")
    return found


async def answer(world: Scene, key: str, text: str) -> None:
    take = await world.models.take(key)
    take.say(text)
    take.finish()


async def test_one_worker_is_enough_for_a_parent_and_its_children(scene: Make) -> None:
    world = await world_of(scene, agent_queue={"max_workers": 1})
    task = await submit(world, "delegate echo one, echo two and echo three", tool_names=AGENTS)
    done = await ended(world, task)
    assert done["answer"] == "wait_agents says: one; two; three"
    assert [child["status"] for child in done["children"]] == ["succeeded"] * 3
    child = await inspect(world, done["children"][0])
    assert (child["answer"], child["parent_id"]) == ("one", task["task_id"])
    reading = await world.client.sse(task["session_id"], 0)
    kinds = [event["event"] for event in reading.events]
    assert kinds.count("turn_waiting") == 1
    assert kinds.count("turn_terminal") == 1


async def test_a_turn_that_waits_is_listed_as_waiting(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "delegate gate a and gate b", tool_names=AGENTS)
    found = await waiting(world, task)
    assert len(found["children"]) == 2
    _, page = await call(world, "GET", "?status=waiting&user_id=ada")
    assert [item["task_id"] for item in page["items"]] == [task["task_id"]]
    _, page = await call(world, "GET", "?status=queued&user_id=ada")
    assert page["items"] == []
    await answer(world, "a", "A")
    assert (await inspect(world, task))["status"] == "waiting"
    await answer(world, "b", "B")
    assert (await ended(world, task))["answer"] == "wait_agents says: A; B"


async def test_a_conversation_that_waits_holds_no_permit(scene: Make) -> None:
    world = await world_of(scene, sessions={"max_active": 1, "permit_linger_s": 0.0})
    tab = await world.client.tab()
    start = await tab.start("delegate gate a", tool_names=AGENTS)
    take = await world.models.take("a")
    other = await tab.start("echo meanwhile")
    assert other.ack is not None
    assert await other.ended(other.ack["turn_id"]) == "succeeded"
    assert start.ack is not None
    behind = await tab.start("echo behind", start.ack["session_id"])
    assert behind.ack is not None
    assert behind.ack["queued"], "a turn that waits is still the session's turn"
    take.say("A")
    take.finish()
    assert await start.ended(start.ack["turn_id"]) == "succeeded"
    assert start.reading is not None
    assert start.reading.text() == "wait_agents says: A"
    assert await behind.ended(behind.ack["turn_id"]) == "succeeded"


async def test_cancelling_a_parent_that_waits_cancels_its_children(scene: Make) -> None:
    world = await world_of(scene, agent_queue={"max_workers": 1})
    task = await submit(world, "delegate gate a and echo never", tool_names=AGENTS)
    found = await waiting(world, task)
    await world.models.take("a")
    status, receipt = await call(world, "DELETE", f"/{task['task_id']}")
    assert (status, receipt["cancelled"]) == (200, True)
    await ended(world, task, "cancelled")
    for child in found["children"]:
        await ended(world, child, "cancelled")


async def test_cancelling_a_conversation_cancels_what_it_has_started(scene: Make) -> None:
    world = await world_of(scene)
    tab = await world.client.tab()
    start = await tab.start("delegate gate a", tool_names=AGENTS)
    await world.models.take("a")
    assert start.ack is not None
    found = await waiting(world, {"task_id": start.ack["turn_id"]})
    receipt = await tab.cancel(start)
    assert receipt["cancelled"]
    assert await start.ended(start.ack["turn_id"]) == "cancelled"
    await ended(world, found["children"][0], "cancelled")


async def test_an_interrupting_message_ends_a_turn_that_waits(scene: Make) -> None:
    world = await world_of(scene)
    tab = await world.client.tab()
    start = await tab.start("delegate gate a", tool_names=AGENTS)
    await world.models.take("a")
    assert start.ack is not None
    found = await waiting(world, {"task_id": start.ack["turn_id"]})
    loud = await tab.start("echo now", start.ack["session_id"], busy="interrupt")
    assert loud.ack is not None
    assert await loud.ended(loud.ack["turn_id"]) == "succeeded"
    assert await start.ended(start.ack["turn_id"]) == "interrupted"
    await ended(world, found["children"][0], "cancelled")


async def test_a_child_that_fails_is_a_result_like_any_other(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "delegate fail refused and echo fine", tool_names=AGENTS)
    done = await ended(world, task)
    assert done["answer"] == "wait_agents says: failed; fine"


async def test_agents_are_nested_as_deep_as_allowed(scene: Make) -> None:
    world = await world_of(scene, agent_queue={"max_child_depth": 2, "max_workers": 1})
    task = await submit(world, "delegate delegate echo deep", tool_names=AGENTS)
    assert "deep" in (await ended(world, task))["answer"]
    task = await submit(world, "delegate delegate delegate echo deeper", tool_names=AGENTS)
    done = await ended(world, task)
    child = await inspect(world, done["children"][0])
    grandchild = await inspect(world, child["children"][0])
    assert "max_child_depth" in grandchild["answer"]
    assert grandchild["children"] == []


async def test_a_turn_starts_no_more_agents_than_allowed(scene: Make) -> None:
    world = await world_of(scene, agent_queue={"max_children": 2})
    task = await submit(world, "delegate echo 1, echo 2, echo 3", tool_names=AGENTS)
    done = await ended(world, task)
    assert len(done["children"]) == 2


@pytest.mark.parametrize("asleep", ["wake", "cancel"])
async def test_what_a_dead_process_had_still_to_do_is_done(
    scene: Make, asleep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hears of the child's end, or of the parent's: the sweep makes up for it."""
    monkeypatch.setattr("actors.children.Children.ended", lambda *_: None)
    world = await world_of(scene)
    task = await submit(world, "delegate gate a", tool_names=AGENTS)
    found = await waiting(world, task)
    take = await world.models.take("a")
    if asleep == "wake":
        take.say("A")
        take.finish()
        await ended(world, found["children"][0])
        assert (await inspect(world, task))["status"] == "waiting"
        world.cluster.janitor._family.wake()
        assert (await ended(world, task))["answer"] == "wait_agents says: A"
    else:
        await call(world, "DELETE", f"/{task['task_id']}")
        assert (await inspect(world, found["children"][0]))["status"] == "running"
        world.cluster.janitor._family.wake()
        await ended(world, found["children"][0], "cancelled")


async def test_a_pool_that_dies_while_children_run(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "delegate gate a and gate b", tool_names=AGENTS)
    found = await waiting(world, task)
    await asyncio.gather(world.models.take("a"), world.models.take("b"))
    await world.cluster.crash(next(iter(world.cluster.pools)))
    await world.cluster.start_pool()
    # Those that ran in the pool that died run one at a time now, in any order.
    await asyncio.gather(answer(world, "a", "A"), answer(world, "b", "B"))
    done = await ended(world, task)
    assert done["answer"] == "wait_agents says: A; B"
    assert [c["task_id"] for c in done["children"]] == [c["task_id"] for c in found["children"]]


async def test_without_pools_session_actors_do_it_all(scene: Make) -> None:
    world = await world_of(scene, pools=0, agent_queue={"enabled": False}, sessions={"sweep_s": 0.1})
    task = await submit(world, "delegate echo one and echo two", tool_names=AGENTS)
    assert (await ended(world, task))["answer"] == "wait_agents says: one; two"
