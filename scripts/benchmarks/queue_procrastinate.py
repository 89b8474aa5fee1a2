"""procrastinate: `batch_defer_async`, and `run_worker_async` with the same concurrency; its other options as they are.

Completed jobs are kept, which is its default. Its worker takes one job by a query, so `batch` does not apply.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from importlib.metadata import version

import asyncpg
from procrastinate import App, PsycopgConnector

from scripts.benchmarks.queue_plan import QueuePlan
from scripts.benchmarks.queue_worker import Control, Handler

WAKES = False
_CONNECTIONS = 10


def _app(url: str) -> App:
    return App(connector=PsycopgConnector(conninfo=url, min_size=4, max_size=_CONNECTIONS))


class Producer:
    """Defers jobs."""

    version = version("procrastinate")

    def __init__(self, url: str) -> None:
        self._url = url
        self._app = _app(url)

    async def open(self) -> None:
        await self._app.open_async()
        await self._app.schema_manager.apply_schema_async()
        self._jobs = self._app.configure_task("noop", queue="bench")

    async def close(self) -> None:
        await self._app.close_async()

    async def enqueue(self, count: int) -> None:
        if count == 1:
            await self._jobs.defer_async(stamp=time.monotonic_ns())
        else:
            await self._jobs.batch_defer_async(*({"stamp": time.monotonic_ns()} for _ in range(count)))

    async def unfinished(self) -> bool:
        return bool(await self._count("status IN ('todo', 'doing')"))

    async def problems(self, expected: int) -> list[str]:
        done = await self._count("status = 'succeeded' AND attempts = 1")
        return [] if done == expected else [f"jobs that succeeded at once: {done} of {expected}"]

    async def _count(self, condition: str) -> int:
        connection = await asyncpg.connect(self._url)
        try:
            return int(await connection.fetchval(f"SELECT count(*) FROM procrastinate_jobs WHERE {condition}"))  # noqa: S608
        finally:
            await connection.close()


async def consume(plan: QueuePlan, handler: Handler, control: Control) -> dict[str, int]:
    """See `Consumer`."""
    app = _app(plan.url)

    @app.task(name="noop", queue="bench")
    async def noop(stamp: int) -> None:
        handler(stamp)

    async with app.open_async():
        await control.ready()
        work = app.run_worker_async(queues=["bench"], concurrency=plan.slots, install_signal_handlers=False)
        worker = asyncio.create_task(work, name="worker")
        await control.stopped.wait()
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
    return {}
