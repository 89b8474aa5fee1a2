"""What a fault test looks at: the service's answers, its database, its processes."""

from __future__ import annotations

import signal
from typing import Any

import aiohttp
import asyncpg

from tests.support.served import API_KEY, Served


async def get(served: Served, path: str) -> Any:
    headers = {"X-API-Key": API_KEY}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(served.url + path) as response:
        return (await response.json())["data"]


async def row(served: Served, query: str, *args: Any) -> Any:
    connection = await asyncpg.connect(served.storage_url)
    try:
        return await connection.fetchval(query, *args)
    finally:
        await connection.close()


async def actor_of(served: Served, session_id: str) -> int:
    """The process that owns a session: the one whose owner id the database names."""
    summary = await get(served, "/wunder/admin/summary")
    owner = await row(served, "SELECT owner_id FROM sessions WHERE session_id = $1", session_id)
    return next(int(a["pid"]) for a in summary["actors"].values() if a["owner_id"] == owner)


def signal_process(served: Served, pid: int, number: signal.Signals) -> None:
    process = next(p for p in served.processes("SessionActor") if p.pid == pid)
    process.send_signal(number)


async def epoch_of(served: Served, session_id: str) -> int:
    return int(await row(served, "SELECT epoch FROM sessions WHERE session_id = $1", session_id))
