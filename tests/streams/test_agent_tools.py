"""The tools spawn_agent, wait_agents and send_to_agent, called by a model that does what the test says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from actors.children import Children
from tests.streams.scene import Scene
from tests.streams.test_children import AGENTS, answer, waiting, world_of
from tests.streams.test_tasks import Make, ended, inspect, submit
from tests.support.facts import eventually


async def ask(world: Scene, *calls: tuple[str, dict[str, Any]], key: str = "p") -> None:
    """The next round of the parent asks for these tools."""
    take = await world.models.take(key)
    for name, arguments in calls:
        take.call(name, arguments)
    take.finish()


async def results(world: Scene, task: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What the parent's tools have returned, once there are so many."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        url = f"{world.client.url}/wunder/chat/sessions/{task['session_id']}/events?limit=500"
        async with world.client.http.get(url) as response:
            events = (await response.json())["data"]["events"]
        found[:] = [e["data"]["data"] for e in events if e["event"] == "tool_result"]
        return len(found) >= count

    await eventually(there, f"{count} results")
    return found


async def test_waiting_ends_with_patience(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "gate p", tool_names=AGENTS)
    await ask(world, ("spawn_agent", {"task": "gate c"}))
    await ask(world, ("wait_agents", {"timeout_s": 0.3}))
    late = await world.models.take("c")
    _, waited = await results(world, task, 2)
    (agent,) = waited["data"]["agents"]
    assert agent["status"] == "running"
    assert "wait again" in waited["data"]["note"]
    await ask(world, ("wait_agents", {"ids": [agent["id"]]}))
    late.say("late")
    late.finish()
    (*_, again) = await results(world, task, 3)
    assert [(a["status"], a["answer"]) for a in again["data"]["agents"]] == [("succeeded", "late")]
    await answer(world, "p", "done")
    assert (await ended(world, task))["answer"] == "done"


async def test_an_agent_is_told_more(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "gate p", tool_names=AGENTS)
    await ask(world, ("spawn_agent", {"task": "echo one"}))
    (started,) = await results(world, task, 1)
    await ask(world, ("send_to_agent", {"id": started["data"]["id"], "message": "echo two"}))
    (*_, sent) = await results(world, task, 2)
    assert sent["data"]["session_id"] == started["data"]["session_id"]
    await ask(world, ("wait_agents", {"ids": [sent["data"]["id"]]}))
    (*_, waited) = await results(world, task, 3)
    assert [a["answer"] for a in waited["data"]["agents"]] == ["two"]
    await answer(world, "p", "done")
    await ended(world, task)


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("wait_agents", {}, "has started no agent"),
        ("wait_agents", {"ids": ["turn_other"]}, "no agent with the id 'turn_other'"),
        ("wait_agents", {"timeout_s": -1}, "timeout_s"),
        ("send_to_agent", {"id": "turn_other", "message": "hi"}, "no agent with the id 'turn_other'"),
        ("spawn_agent", {"task": ""}, "task"),
        ("spawn_agent", {"task": "echo hi", "agent": "nobody"}, "no agent named 'nobody'"),
    ],
)
async def test_wrong_calls_are_told_to_the_model(
    scene: Make, tool: str, arguments: dict[str, Any], reason: str
) -> None:
    world = await world_of(scene)
    task = await submit(world, "gate p", tool_names=AGENTS)
    await ask(world, (tool, arguments))
    (result,) = await results(world, task, 1)
    assert not result["ok"]
    assert reason in result["error"]
    await answer(world, "p", "done")
    assert (await ended(world, task))["children"] == []


async def test_somebody_elses_agent_is_not_there(scene: Make) -> None:
    world = await world_of(scene)
    other = await submit(world, "delegate echo secret", tool_names=AGENTS)
    child = (await ended(world, other))["children"][0]["task_id"]
    task = await submit(world, "gate p", tool_names=AGENTS)
    await ask(world, ("send_to_agent", {"id": child, "message": "echo hi"}), ("wait_agents", {"ids": [child]}))
    assert [result["ok"] for result in await results(world, task, 2)] == [False, False]
    await answer(world, "p", "done")
    await ended(world, task)


async def test_a_child_has_no_tool_that_its_parent_has_not(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "delegate calculate 1+1", tool_names=AGENTS)
    assert "I would need the tool calculator" in (await ended(world, task))["answer"]
    task = await submit(world, "delegate calculate 1+1", tool_names=[*AGENTS, "calculator"])
    assert "2" in (await ended(world, task))["answer"]


async def test_agents_are_offered_only_where_they_are_named(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "delegate echo one")
    assert (await ended(world, task))["answer"] == "I would need the tool spawn_agent for that."


async def test_what_is_asked_beside_a_wait_is_done_before_it(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "gate p", tool_names=[*AGENTS, "calculator", "http_fetch"])
    await ask(world, ("spawn_agent", {"task": "gate c"}))
    await ask(
        world,
        ("wait_agents", {}),
        ("http_fetch", {"url": "http://127.0.0.1:9/"}),
        ("calculator", {"expression": "2*3"}),
    )
    await waiting(world, task)
    await answer(world, "c", "C")
    found = await results(world, task, 4)
    assert [result["tool"] for result in found] == ["spawn_agent", "http_fetch", "calculator", "wait_agents"]
    assert "restarted" not in json.dumps(found)
    await answer(world, "p", "done")
    await ended(world, task)


async def test_a_call_that_is_repeated_after_a_crash_starts_nothing_again(
    scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await world_of(scene)
    started, real = asyncio.Event(), Children.spawn

    async def unheard(self: Children, *args: Any) -> Any:
        child = await real(self, *args)
        if not started.is_set():
            started.set()
            await asyncio.Event().wait()  # the process dies before the result is recorded
        return child

    monkeypatch.setattr(Children, "spawn", unheard)
    task = await submit(world, "delegate echo one", tool_names=AGENTS)
    await started.wait()
    await world.cluster.crash(next(iter(world.cluster.pools)))
    await world.cluster.start_pool()
    done = await ended(world, task)
    assert (done["answer"], done["crashes"]) == ("wait_agents says: one", 1)
    assert len(done["children"]) == 1
    assert (await inspect(world, done["children"][0]))["answer"] == "one"
