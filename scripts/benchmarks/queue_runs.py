"""One run of a bare queue: enqueued, drained by worker processes, looked at in the database; then a steady trickle."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import msgspec

from scripts.benchmarks.driver import Measured
from scripts.benchmarks.numbers import Numbers, percentiles
from scripts.benchmarks.processes import ProcessTree, machine_cpu_s
from scripts.benchmarks.queue_plan import QueuePlan, QueueReport, System, Tally, Windows
from scripts.benchmarks.queue_worker import WORKERS
from scripts.benchmarks.server import ROOT
from tests.support.postgres import PostgresServer

GROUP = 200
"""Tasks of one enqueuing call while the queue is filled: what a gateway sends at most."""
_SAMPLE_S = 0.01
_WINDOWS = {"half_s": 0.5, "five_s": 5.0}
_PATIENCE_S = 300.0


class QueueCase(msgspec.Struct, frozen=True, kw_only=True):
    """`tasks` to drain; then `rate` tasks per second for `seconds`, unless that is 0.

    With `held` somebody else keeps a transaction open meanwhile, so that nothing dead can be cleared away.
    """

    system: System
    slots: int
    batch: int
    tasks: int
    rate: float = 100.0
    seconds: float = 0.0
    window: str = "half_s"
    held: bool = False

    @property
    def label(self) -> str:
        size = "" if self.system == "procrastinate" else f", batch {self.batch}"
        long = "" if self.window == "half_s" else f", {self.tasks:,} tasks"
        held = ", an open transaction beside it" if self.held else ""
        return f"{self.system} {self.slots} slots{size}{long}{held}"


class Producer(Protocol):
    """A queue's enqueuing side, and what its database says afterwards."""

    version: str

    async def open(self) -> None:
        """Connect, and make the schema."""

    async def close(self) -> None: ...
    async def enqueue(self, count: int) -> None: ...
    async def unfinished(self) -> bool: ...
    async def problems(self, expected: int) -> list[str]: ...


class Workers:
    """The worker processes of one run."""

    def __init__(self, processes: list[asyncio.subprocess.Process], tally: Tally) -> None:
        self.processes = processes
        self.tally = tally

    def tell(self, line: bytes) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line + b"\n")

    async def hear(self) -> list[bytes]:
        """The next line of each."""
        async with asyncio.timeout(_PATIENCE_S):
            lines = await asyncio.gather(*(p.stdout.readline() for p in self.processes if p.stdout is not None))
        if not all(lines):
            raise RuntimeError("a worker ended too early (see its errors above)")
        return list(lines)

    async def stop(self) -> list[QueueReport]:
        self.tell(b"stop")
        return [msgspec.json.decode(line, type=QueueReport) for line in await self.hear()]


@contextlib.asynccontextmanager
async def workers(case: QueueCase, url: str, processes: ProcessTree) -> AsyncIterator[Workers]:
    """Connected workers that wait for `go`."""
    with tempfile.TemporaryDirectory(prefix="wunder-bench-") as folder:
        path = Path(folder) / "tally"
        tally = Tally(path, WORKERS)
        command = [sys.executable, "-m", "scripts.benchmarks.queue_worker"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "limit": 1 << 26}
        started = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, **pipes) for _ in range(WORKERS)]
        try:
            for number, process in enumerate(started):
                processes.add(process.pid, "workers")
                plan = QueuePlan(
                    system=case.system, url=url, slots=case.slots, batch=case.batch, number=number, tally=str(path)
                )
                assert process.stdin is not None
                process.stdin.write(msgspec.json.encode(plan) + b"\n")
            made = Workers(started, tally)
            await made.hear()
            yield made
        finally:
            for process in started:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
                await process.wait()
                processes.remove(process.pid)
            tally.close()


async def queue_run(
    server: PostgresServer,
    processes: ProcessTree,
    case: QueueCase,
    meanwhile: Callable[[Workers], None] = lambda _: None,
) -> Measured:
    """Fill, drain, trickle, each part checked in the database. `meanwhile` is called when the draining begins."""
    numbers, problems = await _drain(server, processes, case, meanwhile)
    if case.seconds:
        trickled, wrong = await _trickle(server, processes, case)
        numbers |= trickled
        problems += wrong
    return Measured(numbers, problems)


async def _drain(
    server: PostgresServer, processes: ProcessTree, case: QueueCase, meanwhile: Callable[[Workers], None]
) -> tuple[Numbers, list[str]]:
    async with _queue(server, case) as (producer, url):
        begin = time.monotonic()
        for done in range(0, case.tasks, GROUP):
            await producer.enqueue(min(GROUP, case.tasks - done))
        numbers = {"enqueue_per_s": case.tasks / (time.monotonic() - begin)}
        await asyncio.to_thread(server.sql, "CHECKPOINT")
        async with workers(case, url, processes) as made:
            committed = await _committed(server, url)
            before, busy, windows = processes.cpu(), machine_cpu_s(), Windows()
            begin = time.monotonic()
            made.tell(b"go")
            meanwhile(made)
            await _until_handled(made.tally, case.tasks, windows)
            await _until_finished(producer)
            seconds, after, busy = time.monotonic() - begin, processes.cpu(), machine_cpu_s() - busy
            reports = await made.stop()
        used = {kind: (after[kind] - before.get(kind, 0.0)) / seconds for kind in after}
        numbers |= {"drain_per_s": case.tasks / seconds, "drain_s": seconds}
        numbers |= {f"cores_{kind}": cores for kind, cores in used.items()}
        numbers["cores_others"] = max(0.0, busy / seconds - sum(used.values()))
        for name, width_s in _WINDOWS.items():
            numbers |= windows.numbers(width_s, f"drain_{name}")
        numbers |= _per_task(reports, await _committed(server, url) - committed, case.tasks)
        return numbers, await _problems(producer, reports, case.tasks)


async def _trickle(server: PostgresServer, processes: ProcessTree, case: QueueCase) -> tuple[Numbers, list[str]]:
    """One task by one call at a steady rate; with Wunder the workers are woken, as the cluster would."""
    count = int(case.rate * case.seconds)
    async with _queue(server, case) as (producer, url), workers(case, url, processes) as made:
        made.tell(b"go")
        await asyncio.sleep(2.0)
        loop, begin, busy = asyncio.get_running_loop(), time.monotonic(), machine_cpu_s()
        before = processes.cpu()

        async def one() -> None:
            await producer.enqueue(1)
            if case.system == "wunder":
                made.tell(b"wake")

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(begin + number / case.rate - loop.time())
                group.create_task(one())
        await _until_handled(made.tally, count, Windows())
        seconds, after, busy = time.monotonic() - begin, processes.cpu(), machine_cpu_s() - busy
        await _until_finished(producer)
        reports = await made.stop()
        waits = [wait for report in reports for wait in report.waits_ns]
        cores = {f"trickle_cores_{k}": (after[k] - before.get(k, 0.0)) / seconds for k in after}
        others = max(0.0, busy / seconds - sum(cores.values()))
        return (
            {**percentiles("wait", waits), **cores, "trickle_cores_others": others},
            await _problems(producer, reports, count),
        )


@contextlib.asynccontextmanager
async def _queue(server: PostgresServer, case: QueueCase) -> AsyncIterator[tuple[Producer, str]]:
    """A queue in a database of its own, which is gone afterwards."""
    url = await asyncio.to_thread(server.create_database)
    producer: Producer = importlib.import_module(f"scripts.benchmarks.queue_{case.system}").Producer(url)
    await producer.open()
    held = await asyncpg.connect(url) if case.held else None
    try:
        if held is not None:
            await held.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
        yield producer, url
    finally:
        if held is not None:
            await held.close()
        await producer.close()
        await asyncio.to_thread(server.sql, f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


async def _until_handled(tally: Tally, count: int, windows: Windows) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        now, total = time.monotonic(), tally.total()
        windows.add(now, total)
        if total >= count:
            return
        if now > deadline:
            raise RuntimeError(f"{total} of {count} tasks were handled in {_PATIENCE_S:g} s")
        await asyncio.sleep(_SAMPLE_S)


async def _until_finished(producer: Producer) -> None:
    """The handlers have run: only the last completions are on their way, and a database cannot tell of them."""
    while await producer.unfinished():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def _committed(server: PostgresServer, url: str) -> int:
    """Transactions of a database so far; ended processes have reported theirs."""
    connection = await asyncpg.connect(server.url())
    try:
        name = url.rpartition("/")[2]
        return int(await connection.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = $1", name))
    finally:
        await connection.close()


def _per_task(reports: list[QueueReport], transactions: int, tasks: int) -> Numbers:
    statements = sum(sum(report.statements.values()) for report in reports)
    found = {"transactions_per_task": transactions / tasks}
    return found | ({"statements_per_task": statements / tasks} if statements else {})


async def _problems(producer: Producer, reports: list[QueueReport], expected: int) -> list[str]:
    handled = sum(report.handled for report in reports)
    found = [] if handled == expected else [f"the handlers ran {handled} times for {expected} tasks"]
    return found + await producer.problems(expected)
