"""Background tasks end to end: submitted over HTTP, claimed by pools, followed, cancelled, retried, resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from actors.errors import StorageUnavailable, UpstreamUnavailable
from tests.streams.scene import Scene
from tests.support.facts import eventually

Make = Callable[..., Awaitable[Scene]]
QUEUE = {"poll_interval_ms": 200.0, "retry_base_ms": 1.0}


async def submit(scene: Scene, question: str, **fields: Any) -> dict[str, Any]:
    status, data = await call(scene, "POST", "", json={"question": question, "user_id": "ada", **fields})
    assert status == 202, data
    return data


async def call(scene: Scene, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    async with scene.client.http.request(method, f"{scene.client.url}/wunder/tasks{path}", **options) as response:
        body = await response.json()
        return response.status, body.get("data", body.get("error"))


async def inspect(scene: Scene, task: dict[str, Any]) -> dict[str, Any]:
    status, data = await call(scene, "GET", f"/{task['task_id']}")
    assert status == 200
    return data


async def ended(scene: Scene, task: dict[str, Any], wanted: str = "succeeded") -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def has_ended() -> bool:
        found.update(await inspect(scene, task))
        return found["status"] not in ("queued", "waiting", "running")

    await eventually(has_ended, "the task ended")
    assert found["status"] == wanted, found
    return found


@pytest.fixture
async def tasks(scene: Make) -> Callable[..., Awaitable[Scene]]:
    async def make(pools: int = 1, **sections: Any) -> Scene:
        queue = {**QUEUE, **sections.pop("agent_queue", {})}
        world = await scene(agent_queue=queue, **sections)
        for _ in range(pools):
            await world.cluster.start_pool()
        return world

    return make


async def test_a_task_runs_in_a_session_of_its_own(tasks: Any) -> None:
    world = await tasks()
    task = await submit(world, "echo hello there")
    assert (task["status"], task["position"]) == ("queued", 1)
    done = await ended(world, task)
    assert done["answer"] == "hello there"
    assert [a["outcome"] for a in done["attempts"]] == ["succeeded"]
    async with world.client.http.get(f"{world.client.url}/wunder/chat/sessions/{task['session_id']}") as response:
        messages = (await response.json())["data"]["messages"]
    assert [(m["role"], m["content"]) for m in messages] == [("user", "echo hello there"), ("assistant", "hello there")]


async def test_its_stream_is_whole_from_the_first_event(tasks: Any) -> None:
    world = await tasks()
    task = await submit(world, "count to 20")
    await ended(world, task)
    reading = await world.client.sse(task["session_id"], 0)
    kinds = [event["event"] for event in reading.events]
    assert kinds[0] == "queued"
    assert kinds[1] == "queue_start"
    assert kinds[-1] == "turn_terminal"
    assert not reading.gaps


async def test_a_running_task_is_followed_and_cancelled(tasks: Any) -> None:
    world = await tasks()
    task = await submit(world, "gate slow")
    take = await world.models.take("slow")
    take.say("some ", "words")
    tab = await world.client.tab()
    watch = await tab.watch(task["session_id"], 0)
    await eventually(lambda: watch.reading is not None and "words" in watch.reading.text(), "its words are seen")
    status, receipt = await call(world, "DELETE", f"/{task['task_id']}")
    assert (status, receipt["cancelled"], receipt["status"]) == (200, True, "cancelled")
    await watch.ended(task["task_id"])
    await ended(world, task, "cancelled")
    tab.cancel(watch) if not asyncio.iscoroutinefunction(tab.cancel) else await tab.cancel(watch)


async def test_a_queued_task_is_cancelled_and_never_starts(tasks: Any) -> None:
    world = await tasks(pools=0)
    task = await submit(world, "echo never")
    status, receipt = await call(world, "DELETE", f"/{task['task_id']}")
    assert (status, receipt["cancelled"]) == (200, True)
    await world.cluster.start_pool()
    done = await ended(world, task, "cancelled")
    assert (done["attempt"], done["attempts"]) == (0, [])
    hosts = world.cluster.hosts.values()
    assert sum(host.describe().gauges["turns_cancelled"] for host in hosts) == 1, "it never started, and it is counted"


async def test_tasks_of_one_session_run_in_their_order(tasks: Any) -> None:
    world = await tasks(pools=2)
    first = await submit(world, "echo 0")
    rest = [await submit(world, f"echo {n}", session_id=first["session_id"]) for n in range(1, 6)]
    for task in [first, *rest]:
        await ended(world, task)
    async with world.client.http.get(f"{world.client.url}/wunder/chat/sessions/{first['session_id']}") as response:
        messages = (await response.json())["data"]["messages"]
    assert [m["content"] for m in messages if m["role"] == "assistant"] == [str(n) for n in range(6)]


async def test_a_task_for_a_session_that_is_open_is_run_by_its_owner(tasks: Any) -> None:
    world = await tasks()
    tab = await world.client.tab()
    start = await tab.start("echo first")
    assert start.ack is not None
    await start.ended(start.ack["turn_id"])
    task = await submit(world, "echo second", session_id=start.ack["session_id"])
    assert (await ended(world, task))["answer"] == "second"


async def test_a_message_waits_behind_a_background_turn(tasks: Any) -> None:
    world = await tasks()
    task = await submit(world, "gate background")
    take = await world.models.take("background")
    tab = await world.client.tab()
    start = await tab.start("echo after", task["session_id"])
    assert start.ack is not None
    assert start.ack["queued"]
    take.say("done")
    take.finish()
    assert await start.ended(start.ack["turn_id"]) == "succeeded"
    await ended(world, task)


async def test_many_tasks_run_once_each_within_the_pools_bounds(tasks: Any) -> None:
    world = await tasks(pools=2, agent_queue={"max_workers": 3})
    submitted = await asyncio.gather(*(submit(world, f"echo {n}") for n in range(60)))
    done = [await ended(world, task) for task in submitted]
    assert sorted(int(d["answer"]) for d in done) == list(range(60))
    assert {d["attempt"] for d in done} == {1}
    assert sum(pool.counts.claimed for pool in world.cluster.pools.values()) == 60


async def test_a_pool_that_dies_loses_nothing(tasks: Any) -> None:
    world = await tasks()
    task = await submit(world, "gate a")
    take = await world.models.take("a")
    take.say("never ", "kept")
    await world.cluster.crash(next(iter(world.cluster.pools)))
    await world.cluster.start_pool()
    again = await world.models.take("a")
    again.say("kept")
    again.finish()
    done = await ended(world, task)
    assert (done["answer"], done["crashes"], done["attempt"]) == ("kept", 1, 2)
    crashed, last = done["attempts"]
    assert (crashed["outcome"], crashed["error"], last["outcome"]) == ("crashed", None, "succeeded")
    assert done["started_at"] == crashed["started_at"] <= crashed["finished_at"] == last["started_at"]


async def test_a_failed_attempt_is_tried_again_and_its_words_taken_back(tasks: Any) -> None:
    world = await tasks()
    task = await submit(world, "gate a")
    take = await world.models.take("a")
    take.say("wrong ", "start")
    take.fail(UpstreamUnavailable("the model's server went away"))
    again = await world.models.take("a")
    again.say("right")
    again.finish()
    done = await ended(world, task)
    assert (done["answer"], done["attempt"]) == ("right", 2)
    assert [(a["attempt"], a["outcome"]) for a in done["attempts"]] == [(1, "failed"), (2, "succeeded")]
    reading = await world.client.sse(task["session_id"], 0)
    assert reading.text() == "right"
    assert "task_retry" in [event["event"] for event in reading.events]


async def test_a_task_that_always_fails_is_dead_and_can_be_tried_again(tasks: Any) -> None:
    world = await tasks()
    task = await submit(world, "gate a", max_attempts=2)
    for _ in range(2):
        (await world.models.take("a")).fail(UpstreamUnavailable("away"))
    dead = await ended(world, task, "dead")
    assert dead["error"]["code"] == "LLM_UNAVAILABLE"
    status, again = await call(world, "POST", f"/{task['task_id']}/retry")
    assert (status, again["status"]) == (202, "queued")
    take = await world.models.take("a")
    take.say("alive")
    take.finish()
    done = await ended(world, task)
    assert done["answer"] == "alive"
    assert [a["outcome"] for a in done["attempts"]] == ["failed", "dead", "succeeded"]


async def test_a_waiting_task_is_told_its_place_and_how_long_it_may_take(tasks: Any) -> None:
    world = await tasks(agent_queue={"max_workers": 1})
    first = await submit(world, "gate a")
    assert first["estimated_wait_s"] is None, "nobody knows how fast the pools are"
    take = await world.models.take("a")
    assert (await inspect(world, first))["position"] is None, "it runs"
    waiting = [await submit(world, f"echo {n}") for n in range(8)]
    found = await inspect(world, waiting[3])
    assert (waiting[3]["position"], found["position"], found["estimated_wait_s"]) == (4, 4, None)
    take.finish()
    for task in waiting:
        await ended(world, task)
    blocker = await submit(world, "gate b")
    await world.models.take("b")
    known: list[dict[str, Any]] = []

    async def is_known() -> bool:
        known.append(await submit(world, "echo more"))
        return known[-1]["estimated_wait_s"] is not None

    await eventually(is_known, "the pool has told how fast it was")
    known.append(await submit(world, "echo last"))
    assert known[-1]["estimated_wait_s"] >= known[-2]["estimated_wait_s"] >= 0
    found = await inspect(world, known[-1])
    assert found["position"] == known[-1]["position"] == len(known)
    assert found["estimated_wait_s"] is not None
    later = await submit(world, "echo later", run_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    same = await submit(world, "echo same", session_id=blocker["session_id"])
    assert (later["estimated_wait_s"], same["estimated_wait_s"]) == (None, None)
    reading = await world.client.page(known[-1]["session_id"], 0)
    assert reading.events[0]["data"]["data"]["estimated_wait_s"] == known[-1]["estimated_wait_s"]


async def test_a_task_with_a_time_waits_for_it(tasks: Any) -> None:
    world = await tasks()
    at = datetime.now(UTC) + timedelta(seconds=0.4)
    task = await submit(world, "echo later", run_at=at.isoformat())
    assert (await inspect(world, task))["status"] == "queued"
    await ended(world, task)
    assert datetime.now(UTC) >= at


async def test_a_task_that_waits_for_its_time_is_cancelled(tasks: Any) -> None:
    world = await tasks()
    at = datetime.now(UTC) + timedelta(hours=1)
    task = await submit(world, "echo never", run_at=at.isoformat())
    status, receipt = await call(world, "DELETE", f"/{task['task_id']}")
    assert (status, receipt["cancelled"], receipt["status"]) == (200, True, "cancelled")
    assert (await ended(world, task, "cancelled"))["attempt"] == 0


async def test_a_repeated_key_is_one_task(tasks: Any) -> None:
    world = await tasks()
    both = await asyncio.gather(*(submit(world, "echo once", idempotency_key="k") for _ in range(4)))
    assert len({task["task_id"] for task in both}) == 1


async def test_a_full_queue_says_how_full(tasks: Any) -> None:
    world = await tasks(pools=0, agent_queue={"max_queued_per_user": 2})
    for n in range(2):
        await submit(world, f"echo {n}")
    status, error = await call(world, "POST", "", json={"question": "echo 3", "user_id": "ada"})
    assert (status, error["code"]) == (429, "USER_QUOTA_EXCEEDED")
    assert error["detail"] == {"reason": "user_queue_full", "queued": 2}
    world.leaves_turns = True


async def test_somebody_elses_task_does_not_exist(tasks: Any) -> None:
    world = await tasks()
    status, error = await call(world, "GET", "/turn_none")
    assert (status, error["code"]) == (404, "NOT_FOUND")
    status, error = await call(world, "GET", "?status=sleeping&user_id=ada")
    assert (status, error["field"]) == (400, "status")
    status, error = await call(world, "GET", "?cursor=none&user_id=ada")
    assert (status, error["field"]) == (400, "cursor")


async def test_a_claim_whose_answer_was_lost_is_made_up_for(tasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await tasks(pools=0)
    pool = await world.cluster.start_pool()
    store = pool._services.store
    real, lost = store.claim_tasks, []

    async def unheard(*args: Any, **kwargs: Any) -> Any:
        claimed = await real(*args, **kwargs)
        if claimed and not lost:
            lost.extend(claimed)
            raise StorageUnavailable("the answer was lost")
        return claimed

    monkeypatch.setattr(store, "claim_tasks", unheard)
    task = await submit(world, "echo found again")
    done = await ended(world, task)
    assert lost
    assert (done["answer"], done["crashes"]) == ("found again", 1)
