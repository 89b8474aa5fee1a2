"""Schedules end to end: made over HTTP, fired by the janitor's scheduler, run by a pool."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.clock import SystemClock
from actors.handles import DirectoryHandle
from actors.wiring import create_scheduler
from gateway.cli import add_parsers, run_action
from storage.factory import create_store
from tests.streams.scene import Scene
from tests.support.facts import eventually

Make = Callable[..., Awaitable[Scene]]


async def call(scene: Scene, method: str, path: str = "", body: Any = None) -> tuple[int, dict[str, Any]]:
    async with scene.client.http.request(method, f"{scene.client.url}/wunder/cron{path}", json=body) as response:
        answer = await response.json()
        return response.status, answer.get("data", answer.get("error"))


async def made(scene: Scene, **fields: Any) -> dict[str, Any]:
    body = {"question": "echo tick", "user_id": "ada", **fields}
    status, schedule = await call(scene, "POST", "", body)
    assert status == 201, schedule
    return schedule


async def history(scene: Scene, schedule: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest first."""
    status, page = await call(scene, "GET", f"/{schedule['schedule_id']}/history")
    assert status == 200
    items: list[dict[str, Any]] = page["items"]
    return items


async def succeeded(scene: Scene, schedule: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The runs, once so many of them have."""
    found: list[dict[str, Any]] = []

    async def look() -> bool:
        found[:] = [run for run in await history(scene, schedule) if run["task_status"] == "succeeded"]
        return len(found) >= count

    await eventually(look, f"{count} runs succeeded", timeout_s=20)
    return found


@pytest.fixture
async def world(scene: Make) -> Callable[..., Awaitable[Scene]]:
    async def make(pools: int = 1, **sections: Any) -> Scene:
        found = await scene(agent_queue={"poll_interval_ms": 200.0, **sections.pop("agent_queue", {})}, **sections)
        for _ in range(pools):
            await found.cluster.start_pool()
        return found

    return make


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


async def test_every_second(world: Any) -> None:
    """Its due times are a second apart, each is one task, and each task succeeds."""
    scene = await world()
    schedule = await made(scene, every=1, missed="all", name="ticker")
    runs = await succeeded(scene, schedule, 3)
    status, _ = await call(scene, "PATCH", f"/{schedule['schedule_id']}", {"paused": True})
    assert status == 200
    due = sorted(us(run["due_at"]) for run in runs)
    assert [later - earlier for earlier, later in pairwise(due)] == [1_000_000] * (len(due) - 1)
    assert due[0] - us(schedule["created_at"]) == 1_000_000
    assert len({run["task_id"] for run in runs}) == len({run["session_id"] for run in runs}) == len(runs)
    assert all(run["outcome"] == "fired" and not run["manual"] for run in runs)
    task_id = runs[0]["task_id"]
    async with scene.client.http.get(f"{scene.client.url}/wunder/tasks/{task_id}") as response:
        assert (await response.json())["data"]["answer"] == "tick"
    counts = scene.cluster.janitor.scheduler.counts  # type: ignore[union-attr]
    assert counts.fired >= 3
    await eventually(lambda: _quiet(scene), "nothing runs any more")


async def _quiet(scene: Scene) -> bool:
    async with scene.client.http.get(f"{scene.client.url}/wunder/tasks?user_id=*") as response:
        return all(t["status"] == "succeeded" for t in (await response.json())["data"]["items"])


async def test_two_schedulers_at_the_same_time(world: Any) -> None:
    """As while a janitor is replaced: both look at the same due times, at the same moments."""
    scene = await world()
    cluster = scene.cluster
    store = create_store(cluster.settings.storage)
    await store.open()
    directory = DirectoryHandle(cluster.reach.actor("directory"))
    other = create_scheduler(cluster.actor_settings, store, SystemClock(), directory, cluster.reach)
    schedules = [await made(scene, every=1, missed="all", name=str(n)) for n in range(5)]
    other.start()
    try:
        for schedule in schedules:
            await succeeded(scene, schedule, 3)
    finally:
        await other.stop()
        await store.close()
    for schedule in schedules:
        _, paused = await call(scene, "PATCH", f"/{schedule['schedule_id']}", {"paused": True})
        due = sorted(us(run["due_at"]) for run in await history(scene, schedule))
        assert [later - earlier for earlier, later in pairwise(due)] == [1_000_000] * (len(due) - 1)
        assert paused["runs"] == len(due)
    await eventually(lambda: _quiet(scene), "nothing runs any more")
    async with scene.client.http.get(f"{scene.client.url}/wunder/tasks?user_id=*&limit=200") as response:
        tasks = (await response.json())["data"]["items"]
    runs = [run["task_id"] for schedule in schedules for run in await history(scene, schedule)]
    assert sorted(task["task_id"] for task in tasks) == sorted(runs), "a task without a due time"
    counts = cluster.janitor.scheduler.counts  # type: ignore[union-attr]
    assert counts.fired + other.counts.fired == len(runs)


async def test_runs_of_one_session_follow_each_other(world: Any) -> None:
    scene = await world()
    async with scene.client.http.post(f"{scene.client.url}/wunder/chat/sessions", json={"user_id": "ada"}) as response:
        session_id = (await response.json())["data"]["session_id"]
    schedule = await made(scene, every=1, session_id=session_id)
    runs = await succeeded(scene, schedule, 2)
    await call(scene, "DELETE", f"/{schedule['schedule_id']}")
    assert {run["session_id"] for run in runs} == {session_id}
    await eventually(lambda: _quiet(scene), "nothing runs any more")


async def test_a_session_that_is_open_is_told(world: Any) -> None:
    """Its owner runs the task: no pool is there to do it."""
    scene = await world(pools=0)
    tab = await scene.client.tab()
    start = await tab.start("echo first")
    assert start.ack is not None
    await start.ended(start.ack["turn_id"])
    at = datetime.now(UTC) + timedelta(seconds=0.5)
    schedule = await made(scene, at=at.isoformat(), session_id=start.ack["session_id"])
    (run,) = await succeeded(scene, schedule, 1)
    assert run["session_id"] == start.ack["session_id"]


async def test_at_a_time_once(world: Any) -> None:
    scene = await world()
    at = datetime.now(UTC) + timedelta(seconds=0.5)
    schedule = await made(scene, at=at.isoformat())
    assert schedule["upcoming"] == [schedule["next_run_at"]]
    (run,) = await succeeded(scene, schedule, 1)
    assert us(run["due_at"]) // 1000 == round(at.timestamp() * 1_000_000) // 1000
    _, after = await call(scene, "GET", f"/{schedule['schedule_id']}")
    assert (after["next_run_at"], after["upcoming"], after["runs"], after["paused"]) == (None, [], 1, False)
    assert after["last_run_at"] == run["due_at"]


async def test_run_now_besides_the_due_times(world: Any) -> None:
    scene = await world()
    schedule = await made(scene, cron="0 0 1 1 *", zone="Europe/Berlin", paused=True)
    status, task = await call(scene, "POST", f"/{schedule['schedule_id']}/run")
    assert status == 202
    assert task.keys() == {"task_id", "session_id", "status", "position"}
    (run,) = await succeeded(scene, schedule, 1)
    assert (run["manual"], run["task_id"]) == (True, task["task_id"])
    _, after = await call(scene, "GET", f"/{schedule['schedule_id']}")
    assert (after["next_run_at"], after["runs"], after["paused"]) == (None, 1, True)


async def test_pause_and_resume(world: Any) -> None:
    scene = await world()
    schedule = await made(scene, cron="0 9 * * mon-fri", zone="America/New_York")
    path = f"/{schedule['schedule_id']}"
    assert len(schedule["upcoming"]) == 3
    assert schedule["upcoming"][0] == schedule["next_run_at"]
    _, paused = await call(scene, "PATCH", path, {"paused": True})
    assert (paused["paused"], paused["next_run_at"], paused["upcoming"]) == (True, None, [])
    _, resumed = await call(scene, "PATCH", path, {"paused": False})
    assert (resumed["paused"], resumed["upcoming"]) == (False, schedule["upcoming"])


async def test_a_change_changes_what_it_names(world: Any) -> None:
    scene = await world(pools=0)
    schedule = await made(scene, cron="0 9 * * *", zone="UTC", tool_names=["sleep"], priority=3, name="a")
    path = f"/{schedule['schedule_id']}"
    _, renamed = await call(
        scene, "PATCH", path, {"name": "b", "question": "echo other", "missed": "all", "grace_s": 5}
    )
    changed = {"name": "b", "missed": "all", "grace_s": 5.0, "task": schedule["task"] | {"question": "echo other"}}
    assert renamed == schedule | changed | {"updated_at": renamed["updated_at"]}
    assert schedule["task"]["tool_names"] == ["sleep"]
    _, moved = await call(scene, "PATCH", path, {"zone": "Asia/Kathmandu"})
    assert moved["next_run_at"][11:16] == "03:15"
    _, other = await call(scene, "PATCH", path, {"every": 3600, "session_id": None, "max_attempts": None})
    assert (other["cron"], other["every"]) == (None, 3600.0)
    assert us(other["next_run_at"]) - us(other["updated_at"]) == 3_600_000_000
    _, same = await call(scene, "PATCH", path, {"every": 3600})
    assert same["next_run_at"] == other["next_run_at"], "nothing has changed, so it counts on"


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "cron", "exactly one of at, every, cron, got none of them"),
        ({"every": 5, "cron": "* * * * *"}, "cron", "got every and cron"),
        ({"every": 0.5}, "every", "expected seconds from 1 to 31622400, got 0.5"),
        ({"every": 1e300}, "every", "got 1e+300"),
        ({"every": "often"}, "every", "Expected `float | null`, got `str`"),
        ({"cron": "* * * *"}, "cron", "got '* * * *'"),
        ({"cron": "R * * * *"}, "cron", "expected five fields"),
        ({"cron": "0 0 30 2 *"}, "cron", "never fires"),
        ({"cron": "0 9 * * *", "zone": "Europe/Berln"}, "zone", "got 'Europe/Berln'"),
        ({"at": "2020-01-01T00:00:00Z"}, "at", "expected a time after now"),
        ({"at": "2999-01-01T00:00:00"}, "at", "or zone beside it"),
        ({"at": "9999-12-31T23:59:59-12:00"}, "at", "expected a year"),
        ({"at": "tomorrow"}, "at", "Invalid RFC3339"),
        ({"every": 5, "missed": "some"}, "missed", "Invalid enum value 'some'"),
        ({"every": 5, "grace_s": 0}, "grace_s", ">= 1.0"),
        ({"every": 5, "model_name": "none"}, "model_name", "none"),
        ({"every": 5, "tool_names": ["none"]}, "tool_names", "none"),
        ({"every": 5, "agent_id": "none"}, "agent_id", "none"),
        ({"every": 5, "question": ""}, "question", "length"),
        ({"every": 5, "question": "x" * 70_000}, "question", "at most 65536 bytes"),
        ({"every": 5, "attachments": [{"content": "x" * 70_000}]}, "attachments", "at most 65536 bytes"),
    ],
)  # fmt: skip
async def test_what_is_refused(world: Any, body: dict[str, Any], field: str, words: str) -> None:
    scene = await world(pools=0)
    status, error = await call(scene, "POST", "", {"question": "echo", "user_id": "ada", **body})
    assert (status, error["code"], error.get("field")) == (400, "INVALID_REQUEST", field), error
    assert words in error["message"]
    _, page = await call(scene, "GET", "?user_id=*")
    assert page == {"items": [], "next": None}


async def test_the_nearest_zone_is_named(world: Any) -> None:
    scene = await world(pools=0)
    for wrong, meant in (("Europe/Berln", "Europe/Berlin"), ("europe/berlin", "Europe/Berlin")):
        _, error = await call(scene, "POST", "", {"question": "q", "user_id": "ada", "cron": "@daily", "zone": wrong})
        assert error["hint"] == f"did you mean '{meant}'?"


async def test_wrong_changes_change_nothing(world: Any) -> None:
    scene = await world(pools=0)
    schedule = await made(scene, at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    path = f"/{schedule['schedule_id']}"
    for body, status, field in (
        ({"zone": "Mars"}, 400, "zone"),
        ({"every": 5, "at": "2999-01-01T00:00:00Z"}, 400, "cron"),
        ({"session_id": "ses_none"}, 404, None),
        ({"model_name": "none"}, 400, "model_name"),
        ({"question": None}, 400, "question"),
        ({"question": "x" * 70_000}, 400, "question"),
    ):
        answered, error = await call(scene, "PATCH", path, body)
        assert (answered, error.get("field")) == (status, field)
    assert (await call(scene, "GET", path))[1] == schedule
    assert (await call(scene, "PATCH", "/sch_none", {"name": "x"}))[0] == 404


async def test_a_session_that_is_not_there_is_refused(world: Any) -> None:
    scene = await world(pools=0)
    status, error = await call(scene, "POST", "", {"question": "q", "user_id": "ada", "every": 5, "session_id": "none"})
    assert (status, error["code"]) == (404, "SESSION_NOT_FOUND")


async def test_a_deleted_session_pauses_its_schedule(world: Any) -> None:
    scene = await world(pools=0)
    async with scene.client.http.post(f"{scene.client.url}/wunder/chat/sessions", json={"user_id": "ada"}) as response:
        session_id = (await response.json())["data"]["session_id"]
    schedule = await made(scene, every=1, session_id=session_id)
    path = f"/{schedule['schedule_id']}"
    await scene.client.http.delete(f"{scene.client.url}/wunder/chat/sessions/{session_id}")

    async def is_paused() -> bool:
        return bool((await call(scene, "GET", path))[1]["paused"])

    await eventually(is_paused, "it is paused")
    assert (await call(scene, "GET", path))[1]["pause_reason"] == "its session was deleted"
    newest = (await history(scene, schedule))[0]
    assert (newest["outcome"], newest["error"]["code"]) == ("refused", "SESSION_NOT_FOUND")
    assert (await call(scene, "PATCH", path, {"paused": False}))[0] == 404
    assert (await call(scene, "POST", f"{path}/run"))[0] == 404
    status, resumed = await call(scene, "PATCH", path, {"paused": False, "session_id": None, "every": 3600})
    assert (status, resumed["paused"], resumed["pause_reason"]) == (200, False, None)


async def test_a_repeated_key_is_one_schedule_and_too_many_are_refused(world: Any) -> None:
    scene = await world(pools=0, schedules={"max_per_user": 2})
    first = await made(scene, every=3600, idempotency_key="k")
    assert await made(scene, cron="@daily", idempotency_key="k") == first
    await made(scene, every=3600)
    status, error = await call(scene, "POST", "", {"question": "q", "user_id": "ada", "every": 3600})
    assert (status, error["code"], error["detail"]["reason"]) == (429, "USER_QUOTA_EXCEEDED", "too_many_schedules")
    assert (await call(scene, "DELETE", f"/{first['schedule_id']}"))[1]["deleted"]
    await made(scene, every=3600)
    await made(scene, every=3600, user_id="bob")


async def test_the_command_line(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every action against a real gateway."""
    scene = await world()

    async def cron(*arguments: str) -> str:
        parser = argparse.ArgumentParser()
        add_parsers(parser.add_subparsers())
        options = parser.parse_args(["cron", *arguments, "--url", scene.client.url])
        assert await asyncio.to_thread(run_action, options, {"WUNDER_API_KEY": "test-api-key"}, tmp_path) == 0
        return capsys.readouterr().out

    schedule_id = (await cron("add", "echo hi", "--every", "1h", "--user", "ada", "--name", "hourly")).split()[0]
    assert (await cron("list")).split()[0] == schedule_id
    assert "paused" in await cron("pause", schedule_id)
    assert "next 2" in await cron("resume", schedule_id)
    await cron("run", schedule_id)
    await succeeded(scene, {"schedule_id": schedule_id}, 1)
    shown = await cron("show", schedule_id)
    assert "every 3600 s" in shown
    assert "succeeded  by hand" in shown
    assert await cron("delete", schedule_id) == f"{schedule_id}  deleted\n"
    assert await cron("list") == "no schedules\n"


async def test_pages(world: Any) -> None:
    scene = await world(pools=0)
    ids = [(await made(scene, every=3600, name=str(n)))["schedule_id"] for n in range(3)]
    _, page = await call(scene, "GET", "?user_id=ada&limit=2")
    assert [item["schedule_id"] for item in page["items"]] == ids[:0:-1]
    _, rest = await call(scene, "GET", f"?user_id=ada&limit=2&cursor={page['next']}")
    assert ([item["schedule_id"] for item in rest["items"]], rest["next"]) == (ids[:1], None)
    for _ in range(3):
        await call(scene, "POST", f"/{ids[0]}/run")
    _, page = await call(scene, "GET", f"/{ids[0]}/history?limit=2")
    _, rest = await call(scene, "GET", f"/{ids[0]}/history?limit=2&cursor={page['next']}")
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)
    assert (await call(scene, "GET", f"/{ids[0]}/history?cursor=x"))[0] == 400
    assert (await call(scene, "GET", "?user_id=ada&limit=0"))[0] == 400
    scene.leaves_turns = True
