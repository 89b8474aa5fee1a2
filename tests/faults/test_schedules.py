"""The process that fires schedules is killed again and again: no due time is fired twice, and none is lost."""

from __future__ import annotations

from typing import Any

import aiohttp
import asyncpg

from tests.faults.looks import row
from tests.support.facts import eventually
from tests.support.served import API_KEY, Served

SECOND = 1_000_000
KILLS = 3
TIMEOUT_S = 120.0


async def call(served: Served, method: str, path: str, body: Any = None) -> Any:
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session,
        session.request(method, f"{served.url}/wunder/cron{path}", json=body) as response,
    ):
        answer = await response.json()
        assert response.status < 300, answer
        return answer["data"]


async def rows(served: Served, query: str, *args: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(served.storage_url)
    try:
        return list(await connection.fetch(query, *args))
    finally:
        await connection.close()


async def test_a_killed_janitor_fires_nothing_twice_and_loses_nothing(served: Served) -> None:
    body = {"question": "echo tick", "user_id": "killed-janitor", "every": 1, "missed": "all"}
    schedule_id = (await call(served, "POST", "", body))["schedule_id"]

    async def runs() -> int:
        return int(await row(served, "SELECT runs FROM schedules WHERE schedule_id = $1", schedule_id))

    async def beyond(count: int) -> None:
        async def are() -> bool:
            return await runs() >= count

        await eventually(are, f"{count} runs", timeout_s=TIMEOUT_S)

    await beyond(2)
    for _ in range(KILLS):
        await eventually(lambda: served.processes("Janitor"), "there is a janitor", timeout_s=TIMEOUT_S)
        assert served.kill("Janitor")
        await beyond(await runs() + 3)
    await call(served, "PATCH", f"/{schedule_id}", {"paused": True})

    (schedule,) = await rows(served, "SELECT * FROM schedules WHERE schedule_id = $1", schedule_id)
    history = await rows(served, "SELECT * FROM schedule_runs WHERE schedule_id = $1 ORDER BY due_us", schedule_id)
    expected = [schedule["anchor_us"] + number * SECOND for number in range(1, schedule["runs"] + 1)]
    assert [run["due_us"] for run in history] == expected, "a due time was lost, or fired twice"
    assert {run["outcome"] for run in history} == {"fired"}
    query = "SELECT turn_id FROM tasks WHERE user_id = 'killed-janitor'"
    assert sorted(task["turn_id"] for task in await rows(served, query)) == sorted(run["turn_id"] for run in history)
    assert history[0]["fired_us"] - history[0]["due_us"] < 20 * SECOND, "nobody told the scheduler"
    late = max(run["fired_us"] - run["due_us"] for run in history)
    assert late > SECOND // 2, "the kills hit nothing: no run was late"

    async def all_succeeded() -> bool:
        found = await rows(served, "SELECT status FROM tasks WHERE user_id = 'killed-janitor'")
        return all(task["status"] == "succeeded" for task in found)

    await eventually(all_succeeded, "every run succeeded", timeout_s=TIMEOUT_S)
