"""`pg_ctl restart -m immediate` under load: what was acknowledged stays, streams are contiguous or announced (F8)."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.support.facts import eventually
from tests.support.follower import Follower
from tests.support.postgres import PostgresServer
from tests.support.served import API_KEY, Served

TIMEOUT_S = 120.0
STREAMS = 20
RESTARTS = 3


async def test_nothing_acknowledged_is_lost_when_postgres_crashes(served: Served, postgres: PostgresServer) -> None:
    acknowledged: dict[str, str] = {}
    stop = asyncio.Event()

    async def load(number: int) -> None:
        async with Follower(served.url, API_KEY, f"crash-{number}") as follower:
            turn = 0
            while not stop.is_set():
                turn += 1
                ack = await follower.start(f"count to {60 + turn}")
                acknowledged[ack["turn_id"]] = ack["session_id"]
                status = await follower.finish()
                assert status == "succeeded", (status, follower.events[-3:])

    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            group.create_task(load(number))
        for restart in range(1, RESTARTS + 1):
            await more_turns(acknowledged, STREAMS * restart)
            await asyncio.to_thread(postgres.restart, "immediate")
        await more_turns(acknowledged, STREAMS * (RESTARTS + 1))
        stop.set()

    connection = await asyncpg.connect(served.storage_url)
    try:
        rows = await connection.fetch("SELECT turn_id, status FROM tasks WHERE turn_id = ANY($1)", list(acknowledged))
    finally:
        await connection.close()
    stored = {row["turn_id"]: row["status"] for row in rows}
    assert set(stored) == set(acknowledged), "an acknowledged turn is not there"
    assert set(stored.values()) == {"succeeded"}


async def more_turns(acknowledged: dict[str, str], count: int) -> None:
    """Until so many turns have been acknowledged: the load is really going on."""
    await eventually(lambda: len(acknowledged) >= count, "the load goes on", timeout_s=TIMEOUT_S)
