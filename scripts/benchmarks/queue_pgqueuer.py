"""pgqueuer: batch `enqueue`, and `PgQueuer.run` with the same bound of tasks at once, over an asyncpg pool.

It wants `max_concurrent_tasks` to be at least twice `batch_size`. Completed jobs move into its log, as they always do.
"""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from scripts.benchmarks.queue_plan import QueuePlan
from scripts.benchmarks.queue_worker import Control, Handler

WAKES = False
_CONNECTIONS = 10


class Producer:
    """Enqueues jobs."""

    version = version("pgqueuer")

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self._url, min_size=1, max_size=4)
        self._queries = Queries.from_asyncpg_pool(self._pool)
        await self._queries.install()

    async def close(self) -> None:
        await self._pool.close()

    async def enqueue(self, count: int) -> None:
        if count == 1:
            await self._queries.enqueue("noop", b"%d" % time.monotonic_ns())
        else:
            payloads: list[bytes | None] = [b"%d" % time.monotonic_ns() for _ in range(count)]
            await self._queries.enqueue(["noop"] * count, payloads, [0] * count)

    async def unfinished(self) -> bool:
        return bool(await self._pool.fetchval("SELECT count(*) FROM pgqueuer"))

    async def problems(self, expected: int) -> list[str]:
        done = "SELECT count(*), count(DISTINCT job_id) FROM pgqueuer_log WHERE status = 'successful'"
        logged, jobs = await self._pool.fetchrow(done)
        left = await self._pool.fetchval("SELECT count(*) FROM pgqueuer")
        if (logged, jobs, left) == (expected, expected, 0):
            return []
        return [f"{logged} successes of {jobs} jobs are logged and {left} jobs are left, of {expected}"]


async def consume(plan: QueuePlan, handler: Handler, control: Control) -> dict[str, int]:
    """See `Consumer`."""
    pool = await asyncpg.create_pool(plan.url, min_size=4, max_size=_CONNECTIONS)
    queue = PgQueuer.from_asyncpg_pool(pool)

    @queue.entrypoint("noop")
    async def noop(job: Job) -> None:
        handler(int(job.payload or b"0"))

    await control.ready()
    work = asyncio.create_task(queue.run(batch_size=plan.batch, max_concurrent_tasks=plan.slots), name="worker")
    await control.stopped.wait()
    queue.shutdown.set()
    await work
    await pool.close()
    return {}
