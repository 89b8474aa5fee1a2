"""The queue's statements on Postgres read what they mean to, whatever the statistics said when they were planned.

A plan is made once for each connection and statement, from the statistics of that moment: of tables that were empty, or
full, or full once. So the plans of all three have to be the same: each row by its key, each list by its own index.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from storage.postgres import PLANNING
from storage.statements import load
from tests.conformance.store.conftest import OpenStore
from tests.conformance.store.test_task_queue import new

LINES = {"tasks_begun", "tasks_active"}
HOT: dict[str, set[str]] = {
    "enqueue_new_tasks": {"tasks_waiting", "tasks_ready_first"},
    "next_rank": {"tasks_waiting", "tasks_ready_first"},
    "queued_by_user": {"tasks_waiting"},
    "queued_in_all": {"tasks_waiting"},
    "claim_tasks": {
        *("tasks_ready_first", "tasks_ready_suspect", "tasks_pkey"),
        *("sessions_pkey", "owners_pkey", "events_pkey"),
    },
    "finish_and_leave": {"tasks_pkey", "sessions_pkey", "messages_pkey", "outbox_pkey", *LINES},
    "promote_due": {"tasks_to_come", "tasks_pkey", "sessions_pkey", "owners_pkey", *LINES},
    "queue_position": {"tasks_pkey", "tasks_ready_first"},
    "next_due": {"tasks_to_come"},
    "append_events": {"sessions_pkey"},
}
"""The indexes that each hot statement reads, and no other; `LINES` are those of a session's open tasks."""
ROWS = 10_000


async def empty(connection: Any, store: Any) -> None:
    await connection.execute("ANALYZE")


async def full(connection: Any, store: Any) -> None:
    for first in range(0, ROWS, 2000):
        items = [new(f"t{n}", f"u{n % 20}") for n in range(first, first + 2000)]
        await store.enqueue_tasks(items, now_us=20)


async def drained(connection: Any, store: Any) -> None:
    await full(connection, store)
    await connection.execute("ANALYZE")
    await connection.execute("UPDATE tasks SET status = 'succeeded', ready = FALSE, attempt = 1, finished_us = 9")


@pytest.fixture(params=[empty, full, drained])
async def planner(request: pytest.FixtureRequest, postgres_url: str, open_store: OpenStore) -> AsyncIterator[Any]:
    """A connection that plans as ours do, on a database in one of the three states."""
    store = await open_store(postgres_url, command_timeout_s=30.0)
    connection = await asyncpg.connect(postgres_url, server_settings=PLANNING)
    await connection.execute("ALTER TABLE tasks SET (autovacuum_enabled = off)")
    await request.param(connection, store)
    yield connection
    await connection.close()


async def plan_of(connection: Any, query: str) -> str:
    sql = load("postgres")[query]
    await connection.execute(f"PREPARE q AS {sql}")
    nulls = ", ".join(["NULL"] * max(map(int, re.findall(r"\$(\d+)", sql)), default=0))
    lines = await connection.fetch(f"EXPLAIN EXECUTE q ({nulls})" if nulls else "EXPLAIN EXECUTE q")
    await connection.execute("DEALLOCATE q")
    return "\n".join(line[0] for line in lines)


LISTS = {"tasks_ready_first", "tasks_ready_suspect", "tasks_waiting", "tasks_to_come"}
"""Indexes that are read from their start, as far as they are needed: all of their rows are wanted."""


def faults(query: str, plan: str) -> list[str]:
    """What is wrong with a plan."""
    found = re.findall(r"(?:using|Index Scan on) (\w+).*\n *(.*)", plan + "\n")
    read = {index for index, _ in found}
    wrong = [f"{index} is read" for index in read - HOT[query]]
    wrong += [f"{index} is not read" for index in HOT[query] - read - LINES]
    wrong += ["a table is read"] * ("Seq Scan" in plan)
    wrong += [f"{i} is read as a whole" for i, after in found if i not in LISTS and not after.startswith("Index Cond")]
    return [f"{query}: {fault}" for fault in wrong]


async def test_every_hot_statement_reads_its_own_indexes_only(planner: Any) -> None:
    plans = {query: await plan_of(planner, query) for query in HOT}
    wrong = {query: found for query, plan in plans.items() if (found := faults(query, plan))}
    assert not wrong, "\n".join([*map(str, wrong.values()), *(plans[query] for query in wrong)])
