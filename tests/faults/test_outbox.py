"""An outbox that is killed or hung, a database that crashes: each delivery arrives, in order, under one id."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import psutil
import pytest

from tests.support.facts import eventually
from tests.support.postgres import PostgresServer
from tests.support.receiver import SECRET, Receiver
from tests.support.served import API_KEY, Served

TIMEOUT_S = 150.0
SESSIONS, EACH = 4, 5


@pytest.fixture
async def receiver(receiver_port: int) -> AsyncIterator[Receiver]:
    async with Receiver(receiver_port) as receiver:
        yield receiver


async def submit(served: Served, hook: str, user_id: str) -> list[list[str]]:
    """Tasks of several sessions, each session's in order; their ids."""
    async with aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as http:

        async def one(question: str, session_id: str | None) -> dict[str, Any]:
            body = {"question": question, "user_id": user_id, "session_id": session_id, "webhook": {"url": hook}}
            async with http.post(f"{served.url}/wunder/tasks", json=body) as response:
                assert response.status == 202, await response.text()
                data: dict[str, Any] = (await response.json())["data"]
                return data

        async def line(number: int) -> list[str]:
            tasks = [await one(f"echo {number}", None)]
            for _ in range(EACH - 1):
                tasks.append(await one(f"echo {number}", tasks[0]["session_id"]))
            return [task["task_id"] for task in tasks]

        return list(await asyncio.gather(*(line(number) for number in range(SESSIONS))))


async def rows(served: Served, query: str, *args: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(served.storage_url)
    try:
        return list(await connection.fetch(query, *args))
    finally:
        await connection.close()


async def all_sent(served: Served, lines: list[list[str]]) -> None:
    ids = [task for line in lines for task in line]

    async def sent() -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError):  # it crashes in one of these tests
            found = await rows(served, "SELECT state FROM outbox WHERE turn_id = ANY($1)", ids)
            return len(found) == len(ids) and {row["state"] for row in found} == {"sent"}
        return False

    await eventually(sent, "everything is sent", timeout_s=TIMEOUT_S - 30)


async def outcomes(served: Served, lines: list[list[str]]) -> list[str]:
    query = "SELECT outcome FROM outbox_attempts a JOIN outbox o USING (delivery_id) WHERE o.turn_id = ANY($1)"
    return [row["outcome"] for row in await rows(served, query, [task for line in lines for task in line])]


def arrived_in_order(receiver: Receiver, lines: list[list[str]]) -> None:
    """Each task's end came under one id, signed; those of a session never out of order."""
    ids, came = defaultdict(set), []
    for got in receiver.got:
        assert got.signed_by(SECRET)
        task = got.event["data"]["task_id"]
        ids[task].add(got.id)
        came.append(task)
    for line in lines:
        assert all(len(ids[task]) == 1 for task in line)
        order = [task for task in came if task in line]
        firsts = list(dict.fromkeys(order))
        assert firsts == line
        assert [line.index(task) for task in order] == sorted(line.index(task) for task in order)


async def test_one_that_is_killed_before_it_has_recorded_sends_again_under_the_same_id(
    served: Served, receiver: Receiver
) -> None:
    receiver.gates["/killed"] = asyncio.Event()
    lines = await submit(served, f"{receiver.origin}/killed", "killed-outbox")
    await eventually(lambda: len(receiver.got) >= SESSIONS, "every line's first was sent", timeout_s=60)
    assert served.kill("Outbox")
    receiver.gates["/killed"].set()
    await all_sent(served, lines)
    arrived_in_order(receiver, lines)
    assert "crashed" in await outcomes(served, lines), "the kill hit nothing that was under way"
    assert len(receiver.got) > SESSIONS * EACH


async def test_one_that_hangs_is_replaced_and_nothing_is_lost(served: Served, receiver: Receiver) -> None:
    receiver.gates["/hung"] = asyncio.Event()
    await eventually(lambda: served.processes("Outbox"), "there is an outbox", timeout_s=30)
    lines = await submit(served, f"{receiver.origin}/hung", "hung-outbox")
    await eventually(lambda: len(receiver.got) >= SESSIONS, "every line's first was sent", timeout_s=60)
    (hung,) = served.processes("Outbox")
    hung.send_signal(signal.SIGSTOP)
    receiver.gates["/hung"].set()
    try:
        await all_sent(served, lines)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            hung.send_signal(signal.SIGCONT)
    arrived_in_order(receiver, lines)
    assert "crashed" in await outcomes(served, lines)


async def test_a_database_that_crashes_in_between_loses_nothing(
    served: Served, receiver: Receiver, postgres: PostgresServer
) -> None:
    receiver.gates["/away"] = asyncio.Event()
    lines = await submit(served, f"{receiver.origin}/away", "database-away")
    await eventually(lambda: len(receiver.got) >= SESSIONS, "every line's first was sent", timeout_s=60)
    receiver.gates["/away"].set()
    await asyncio.to_thread(postgres.restart, "immediate")
    await all_sent(served, lines)
    arrived_in_order(receiver, lines)
