"""kill -9 and SIGSTOP of real processes under real turns on Ray and Postgres."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.support.follower import Follower
from tests.support.postgres import PostgresServer
from tests.support.served import API_KEY, Served
from tests.support.world import World

TIMEOUT_S = 90.0
WORDS = 400


@pytest.fixture(autouse=True)
async def bounded() -> Any:
    async with asyncio.timeout(TIMEOUT_S):
        yield


async def stored_answer(served: Served, follower: Follower) -> str:
    async with aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session:
        path = f"{served.url}/wunder/chat/sessions/{follower.session_id}"
        async with session.get(path) as response:
            body = await response.json()
    answers = [m["content"] for m in body["data"]["messages"] if m["turn_id"] == follower.turn_id]
    return str(answers[-1])


async def actor_of(served: Served, session_id: str) -> int:
    """The process that owns a session: the one whose owner id the database names."""
    async with aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session:
        async with session.get(f"{served.url}/wunder/admin/summary") as response:
            body = await response.json()
    connection = await asyncpg.connect(served.storage_url)
    try:
        owner = await connection.fetchval("SELECT owner_id FROM sessions WHERE session_id = $1", session_id)
    finally:
        await connection.close()
    return next(int(a["pid"]) for a in body["data"]["actors"].values() if a["owner_id"] == owner)


def is_delta(event: dict[str, Any]) -> bool:
    return bool(event["event"] == "llm_output_delta")


async def test_a_killed_session_actor_is_replaced_and_its_turn_goes_on(served: Served) -> None:
    async with Follower(served.url, API_KEY, "killed-actor") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        pid = await actor_of(served, follower.session_id)
        signal_process(served, pid, signal.SIGKILL)
        assert await follower.finish() == "succeeded"
        assert follower.count("rewind") == 1
        assert follower.count("gap") == 0
        assert follower.text() == await stored_answer(served, follower)


async def test_a_tool_whose_actor_was_killed_is_accepted_once(served: Served, world: World) -> None:
    path = "/hold/killed-tool"
    async with Follower(served.url, API_KEY, "killed-tool") as follower:
        await follower.start(f"fetch http://127.0.0.1:{world.port}{path}")
        await asyncio.to_thread(world.wait_for, path)
        pid = await actor_of(served, follower.session_id)
        signal_process(served, pid, signal.SIGKILL)
        world.release("killed-tool")
        assert await follower.finish() == "succeeded"
        assert follower.count("tool_result") == 1
        assert world.count(path) == 2, "a repeat-safe tool runs again when its outcome is unknown"


async def test_a_killed_gateway_is_replaced_and_readers_resume(served: Served) -> None:
    async with Follower(served.url, API_KEY, "killed-gateway") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        served.kill("Gateway")
        assert await follower.finish() == "succeeded"
        assert follower.resumes >= 1
        assert follower.count("gap") == 0
        assert follower.text() == await stored_answer(served, follower)


async def test_a_killed_directory_comes_back_and_forgets_nothing(served: Served) -> None:
    async with Follower(served.url, API_KEY, "killed-directory") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        served.kill("Directory")
        async with Follower(served.url, API_KEY, "new-session") as other:
            await other.start("count to 5")
            assert await other.finish() == "succeeded"
        assert await follower.finish() == "succeeded"
        assert follower.resumes == 0, "a running stream does not need the directory"
        assert follower.text() == await stored_answer(served, follower)


async def test_a_hung_owner_is_taken_over_and_its_late_writes_are_refused(
    served: Served, postgres: PostgresServer
) -> None:
    async with Follower(served.url, API_KEY, "hung-owner") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        pid = await actor_of(served, follower.session_id)
        before = await epoch_of(served, follower.session_id)
        signal_process(served, pid, signal.SIGSTOP)
        try:
            assert await follower.finish() == "succeeded"
        finally:
            signal_process(served, pid, signal.SIGCONT)
        assert await epoch_of(served, follower.session_id) > before
        assert follower.count("rewind") == 1
        assert follower.text() == await stored_answer(served, follower)
        refused = await refused_writes(served, pid)
        assert refused > 0, "the fault did not bite: the woken owner wrote nothing"
        assert await events_of_old_owner(served, follower) == 0


def signal_process(served: Served, pid: int, number: signal.Signals) -> None:
    process = next(p for p in served.processes("SessionActor") if p.pid == pid)
    process.send_signal(number)


async def epoch_of(served: Served, session_id: str) -> int:
    connection = await asyncpg.connect(served.storage_url)
    try:
        return int(await connection.fetchval("SELECT epoch FROM sessions WHERE session_id = $1", session_id))
    finally:
        await connection.close()


async def events_of_old_owner(served: Served, follower: Follower) -> int:
    """Events stored after the rewind whose numbers belong to the block of the owner before."""
    rewind = next(e["id"] for e in follower.events if e["event"] == "rewind")
    terminal = follower.events[-1]["id"]
    connection = await asyncpg.connect(served.storage_url)
    try:
        late = "SELECT count(*) FROM events WHERE session_id = $1 AND (seq > $3 OR (seq < $2 AND created_us > " \
            "(SELECT created_us FROM events WHERE session_id = $1 AND seq = $2)))"
        return int(await connection.fetchval(late, follower.session_id, rewind, terminal))
    finally:
        await connection.close()


async def refused_writes(served: Served, pid: int) -> int:
    """What the woken actor says of its writes, once it answers again."""
    async with aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session:
        while True:
            async with session.get(f"{served.url}/wunder/admin/summary") as response:
                body = await response.json()
            for actor in body["data"]["actors"].values():
                if actor["pid"] == pid and actor["leases_lost"] > 0:
                    return int(actor["stale_writes_refused"])
