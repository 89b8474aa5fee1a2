"""The directory, the janitor and the gateway die or hang, and the service goes on by itself."""

from __future__ import annotations

import asyncio
import signal

import aiohttp

from tests.faults.looks import actor_of, epoch_of, get, row, signal_process
from tests.support.facts import eventually
from tests.support.follower import Follower
from tests.support.postgres import PostgresServer
from tests.support.served import API_KEY, Kind, Served

EXPIRED = """
    INSERT INTO tokens (token_hash, user_id, created_us, expires_us)
    SELECT 'old', user_id, 1, 1 FROM users WHERE username = 'admin'
"""
PROBE = aiohttp.ClientTimeout(total=3.0)


async def readiness(served: Served) -> int:
    """The status of /readyz; 0 when nobody answers in time."""
    try:
        async with aiohttp.ClientSession(timeout=PROBE) as session, session.get(f"{served.url}/readyz") as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


async def ready(served: Served) -> None:
    async def answered() -> bool:
        return await readiness(served) == 200

    await eventually(answered, "the service is ready", timeout_s=60)


async def answers(served: Served, user_id: str) -> None:
    async with asyncio.timeout(60), Follower(served.url, API_KEY, user_id) as follower:
        await follower.start("count to 5")
        assert await follower.finish() == "succeeded"


def replaced(served: Served, kind: Kind, old: int) -> bool:
    pids = [process.pid for process in served.processes(kind)]
    return bool(pids) and old not in pids


async def test_after_the_janitor_was_killed_hung_owners_are_taken_over_and_rows_expire(served: Served) -> None:
    async with asyncio.timeout(30), Follower(served.url, API_KEY, "without-janitor") as follower:
        await follower.start("count to 300")
        await follower.until(lambda event: event["event"] == "llm_output_delta")
    pid, before = await actor_of(served, follower.session_id), await epoch_of(served, follower.session_id)
    # From here on nobody calls the janitor: no client is there, and the directory does not see that an owner hangs.
    served.kill("Janitor")
    await row(served, EXPIRED)
    signal_process(served, pid, signal.SIGSTOP)
    try:

        async def taken_over() -> bool:
            status = await row(served, "SELECT status FROM tasks WHERE turn_id = $1", follower.turn_id)
            return status == "succeeded" and await epoch_of(served, follower.session_id) > before

        async def expired() -> bool:
            return await row(served, "SELECT count(*) FROM tokens WHERE token_hash = 'old'") == 0

        await eventually(taken_over, "the turn of the hung owner has gone on elsewhere", timeout_s=60)
        await eventually(expired, "the expired token is gone", timeout_s=30)
    finally:
        signal_process(served, pid, signal.SIGCONT)
    janitor = (await get(served, "/wunder/admin/summary"))["janitor"]
    assert janitor["sessions_reopened"] >= 1
    assert janitor["rows_expired"] >= 1


async def test_a_directory_that_came_back_without_a_database_starts_when_there_is_one(
    served: Served, postgres: PostgresServer
) -> None:
    await ready(served)
    await asyncio.to_thread(postgres.stop, "immediate")
    try:
        (old,) = served.kill("Directory")
        await eventually(lambda: replaced(served, "Directory", old), "Ray has restarted it", timeout_s=30)
        for _ in range(3):  # each of these calls tries to start it
            assert await readiness(served) == 503
    finally:
        await asyncio.to_thread(postgres.start)
    await ready(served)
    assert len(served.processes("Directory")) == 1
    await answers(served, "after-outage")


async def test_a_directory_and_a_gateway_that_hang_are_replaced(served: Served) -> None:
    await ready(served)
    hung = {kind: served.processes(kind)[0] for kind in ("Directory", "Gateway")}
    for process in hung.values():
        process.send_signal(signal.SIGSTOP)
    for kind, process in hung.items():
        await eventually(lambda k=kind, p=process: replaced(served, k, p.pid), f"another {kind}", timeout_s=60)
    await ready(served)
    await answers(served, "after-hang")
