"""A turn that asks a person: it waits without holding anything, survives crashes, and goes on with the answer."""

from __future__ import annotations

from typing import Any

from tests.streams.scene import Scene
from tests.streams.test_children import waiting, world_of
from tests.streams.test_tasks import Make, call, ended, submit
from tests.support.facts import eventually

ASK = ["ask_person"]


async def reply(world: Scene, task: dict[str, Any], call_id: str, answer: str) -> tuple[int, dict[str, Any]]:
    return await call(world, "POST", f"/{task['task_id']}/answer", json={"call_id": call_id, "answer": answer})


async def test_a_task_goes_on_with_the_answer(scene: Make) -> None:
    world = await world_of(scene, agent_queue={"max_workers": 1})
    task = await submit(world, "ask me Which way?", tool_names=ASK)
    found = (await waiting(world, task))["waiting"]
    assert found["question"] == "Which way?"
    other = await submit(world, "echo meanwhile")
    assert (await ended(world, other))["answer"] == "meanwhile"
    status, wrong = await reply(world, task, "none", "left")
    assert (status, wrong["code"], wrong["field"]) == (409, "CONFLICT", "call_id")
    assert (await reply(world, task, found["call_id"], "left"))[0] == 202
    done = await ended(world, task)
    assert (done["answer"], done["waiting"]) == ("ask_person says: left", None)
    assert (await reply(world, task, found["call_id"], "left"))[0] == 202, "the same request again is harmless"
    status, late = await reply(world, task, found["call_id"], "right")
    assert (status, late["code"]) == (409, "CONFLICT")
    reading = await world.client.sse(task["session_id"], 0)
    said = next(event["data"]["data"] for event in reading.events if event["event"] == "turn_waiting")
    assert (said["question"], said["call_id"]) == ("Which way?", found["call_id"])


async def test_a_conversation_goes_on_where_it_is_followed(scene: Make) -> None:
    world = await world_of(scene)
    tab = await world.client.tab()
    start = await tab.start("ask me Which way?", tool_names=ASK)
    assert start.ack is not None
    task = {"task_id": start.ack["turn_id"]}
    found = (await waiting(world, task))["waiting"]
    assert (await reply(world, task, found["call_id"], "left"))[0] == 202
    assert await start.ended(start.ack["turn_id"]) == "succeeded"
    assert start.reading is not None
    assert start.reading.text() == "ask_person says: left"


async def test_nobody_answers(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "gate p", tool_names=ASK)
    take = await world.models.take("p")
    take.call("ask_person", {"question": "Anybody?", "choices": ["yes", "no"], "timeout_s": 0.3})
    take.finish()
    again = await world.models.take("p")
    again.say("alone")
    again.finish()
    assert (await ended(world, task))["answer"] == "alone"
    reading = await world.client.sse(task["session_id"], 0)
    events = {event["event"]: event["data"]["data"] for event in reading.events}
    assert events["turn_waiting"]["choices"] == ["yes", "no"]
    assert events["tool_result"]["error"] == "Nobody has answered in time."


async def test_an_answer_survives_the_process_that_was_to_read_it(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "ask me Which way?", tool_names=ASK)
    found = (await waiting(world, task))["waiting"]
    await eventually(lambda: not any(len(pool._work) for pool in world.cluster.pools.values()), "nobody works on it")
    await world.cluster.crash(next(iter(world.cluster.pools)))
    assert (await reply(world, task, found["call_id"], "left"))[0] == 202
    await world.cluster.start_pool()
    assert (await ended(world, task))["answer"] == "ask_person says: left"


async def test_bad_answers_are_refused(scene: Make) -> None:
    world = await world_of(scene)
    task = await submit(world, "ask me Which way?", tool_names=ASK)
    await waiting(world, task)
    for body, field in (({}, "call_id"), ({"call_id": "c"}, "answer"), ({"call_id": "c", "answer": 3}, "answer")):
        status, error = await call(world, "POST", f"/{task['task_id']}/answer", json=body)
        assert (status, error["code"], error["field"]) == (400, "INVALID_REQUEST", field)
    status, error = await call(world, "POST", "/turn_none/answer", json={"call_id": "c", "answer": "x"})
    assert status == 404
    await call(world, "DELETE", f"/{task['task_id']}")
    await ended(world, task, "cancelled")
