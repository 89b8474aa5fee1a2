"""Pools that are killed or hung, a database that crashes, under a backlog: each task completes once, none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import aiohttp
import asyncpg
import psutil

from tests.faults.looks import get, row
from tests.support.facts import eventually
from tests.support.postgres import PostgresServer
from tests.support.served import API_KEY, Served
from tests.support.world import World

TIMEOUT_S = 150.0
COUNT = 60


async def submit(served: Served, questions: list[str], user_id: str) -> list[str]:
    """Queue tasks; their ids once all of them are acknowledged."""
    async with aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session:

        async def one(question: str) -> str:
            body = {"question": question, "user_id": user_id}
            async with session.post(f"{served.url}/wunder/tasks", json=body) as response:
                assert response.status == 202, await response.text()
                return str((await response.json())["data"]["task_id"])

        return list(await asyncio.gather(*(one(question) for question in questions)))


async def tasks(served: Served, ids: list[str]) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(served.storage_url)
    try:
        return list(await connection.fetch("SELECT * FROM tasks WHERE turn_id = ANY($1)", ids))
    finally:
        await connection.close()


async def all_ended(served: Served, ids: list[str]) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = []

    async def ended() -> bool:
        try:
            found[:] = await tasks(served, ids)
        except (OSError, asyncpg.PostgresError):
            return False  # it crashes in this test
        return len(found) == len(ids) and all(task["finished_us"] is not None for task in found)

    await eventually(ended, "every task has ended", timeout_s=TIMEOUT_S)
    return found


async def some_run(served: Served, ids: list[str]) -> None:
    async def running() -> bool:
        found = await tasks(served, ids)
        ended = sum(task["finished_us"] is not None for task in found)
        return 0 < ended < len(ids) and any(task["status"] == "running" for task in found)

    await eventually(running, "the backlog is being worked off", timeout_s=60)


async def completed_once(served: Served, found: list[asyncpg.Record]) -> None:
    """Each task succeeded, and its session has one end of it and one answer."""
    assert {task["status"] for task in found} == {"succeeded"}
    ids = [task["turn_id"] for task in found]
    ends = "SELECT count(*) FROM events WHERE turn_id = ANY($1) AND kind = 'turn_terminal'"
    assert await row(served, ends, ids) == len(ids)
    answers = "SELECT count(*) FROM messages WHERE turn_id = ANY($1) AND role = 'assistant'"
    assert await row(served, answers, ids) == len(ids)


async def test_a_killed_pool_loses_nothing_and_completes_nothing_twice(served: Served) -> None:
    ids = await submit(served, [f"count to {40 + n}" for n in range(COUNT)], "killed-pool")
    await some_run(served, ids)
    for _ in range(2):
        assert served.kill("WorkerPool")
        await eventually(lambda: served.processes("WorkerPool"), "there is another pool", timeout_s=30)
    found = await all_ended(served, ids)
    await completed_once(served, found)
    assert any(task["crashes"] for task in found), "the kill hit nothing that ran"


async def test_a_pool_that_hung_past_its_lease_completes_nothing_any_more(served: Served) -> None:
    ids = await submit(served, [f"count to {60 + n}" for n in range(COUNT)], "hung-pool")
    await some_run(served, ids)
    (pool,) = served.processes("WorkerPool")
    pool.send_signal(signal.SIGSTOP)
    try:
        found = await all_ended(served, ids)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # the supervisor may have replaced it: it answered nobody
            pool.send_signal(signal.SIGCONT)
    await completed_once(served, found)
    assert any(task["crashes"] for task in found), "nothing ran in the hung pool"

    async def refused() -> float:
        pools = (await get(served, "/wunder/admin/summary"))["pools"]
        return sum(float(p["stale_writes_refused"]) for p in pools.values() if p["pid"] == pool.pid)

    if pool.is_running():
        await eventually(refused, "its late writes were refused", timeout_s=30)
    await completed_once(served, await tasks(served, ids))


async def test_tasks_survive_a_database_that_crashes_again_and_again(served: Served, postgres: PostgresServer) -> None:
    ids = await submit(served, [f"count to {30 + n % 20}" for n in range(COUNT)], "crashing-database")
    for _ in range(3):
        await some_run(served, ids)
        await asyncio.to_thread(postgres.restart, "immediate")
    await completed_once(served, await all_ended(served, ids))


async def test_a_tools_effect_is_known_to_the_task_that_caused_it(served: Served, world: World) -> None:
    """The world counts what was done to it: killed in between, a repeat-safe tool is called again, recorded once."""
    path = "/hold/killed-pool-tool"
    ids = await submit(served, [f"fetch http://127.0.0.1:{world.port}{path}"], "pool-tool")
    await asyncio.to_thread(world.wait_for, path)
    assert served.kill("WorkerPool")
    world.release("killed-pool-tool")
    (task,) = await all_ended(served, ids)
    results: Any = "SELECT count(*) FROM messages WHERE turn_id = $1 AND role = 'tool'"
    assert await row(served, results, task["turn_id"]) == 1
    assert (task["status"], task["crashes"], world.count(path)) == ("succeeded", 1, 2)
