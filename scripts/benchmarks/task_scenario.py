"""The scenario `tasks`: the bare queue beside procrastinate and pgqueuer, then whole agent turns."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import uvloop

from scripts.benchmarks.driver import Measured
from scripts.benchmarks.processes import ProcessTree
from scripts.benchmarks.queue_profile import profile_queue
from scripts.benchmarks.queue_runs import GROUP, QueueCase, queue_run
from scripts.benchmarks.results import Result, Row, machine, row
from scripts.benchmarks.scenarios import Options, result, say
from scripts.benchmarks.task_turns import turn_rows
from tests.support.postgres import PostgresServer

PARTS = ("wunder", "procrastinate", "pgqueuer", "turns")
HELD = "held"
"""Only where it is named: five minutes with a transaction of somebody else open."""
_TRICKLE_S = 10.0
_HELD_S = 300.0
_COLUMNS = ["enqueue_per_s", "drain_per_s", "drain_s", "drain_half_s_cv_percent", "drain_half_s_windows"]
_COLUMNS += ["drain_one_s_cv_percent", "drain_one_s_windows"]
_COLUMNS += ["drain_five_s_cv_percent", "drain_five_s_windows", "wait_p50_ms", "wait_p95_ms", "wait_p99_ms"]
_COLUMNS += ["turn_p50_ms", "turn_p95_ms"]
_COLUMNS += ["statements_per_task", "transactions_per_task"]
_COLUMNS += ["cores_workers", "cores_pools", "cores_postgres", "cores_gateway", "cores_session actors"]
_COLUMNS += ["cores_directory", "cores_raylet", "cores_gcs", "cores_other Ray", "cores_client", "cores_others"]


def tasks(options: Options) -> Result:
    """Every part that is asked for, on the same kind of Postgres server (fsync on)."""
    about = machine()
    folder = Path(tempfile.mkdtemp(prefix="wunder-bench-"))
    folder.chmod(0o755)
    try:
        rows = uvloop.run(_bare(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    settings = {}
    if "turns" in options.parts:
        turns, settings = turn_rows(options)
        rows += turns
    found = result("tasks", _COLUMNS, rows, settings, about)
    found.notes += [
        "bare queue: 2 worker processes (uvloop), a no-op handler, Postgres 18 with fsync on, a database per run",
        f"enqueuing: one producer, {GROUP} tasks a call; a trickle of single calls at 100/s for the waits",
        "wait: from before the enqueuing call to the handler; Wunder's workers are woken by a line on a pipe, which "
        "stands for the cluster's wake, the others by LISTEN/NOTIFY",
        "Wunder's task has a session of its own; its completion is fenced and writes task, session and one event",
        "whole turns: `wunder serve`, the scripted model without delay (in the pool's process), one word; pools poll "
        "every 120 s, so they start by a wake; wait: from the HTTP request to the turn's queue_start; 1 s windows",
        "windows: 0.5 s, and 5 s where the drain is long enough for two of them",
    ]
    return found


async def _bare(options: Options, folder: Path) -> list[Row]:
    cases = [case for case in _cases(options) if _is_here(case)]
    if not cases:
        return []
    server, processes = PostgresServer(folder / "postgres", max_connections=200), ProcessTree()
    try:
        await asyncio.to_thread(server.start)
        processes.add(server.pids()[0], "postgres")
        rows = []
        for case in cases:
            runs = 1 if case.window == "five_s" else options.runs
            rows.append(row(case.label, [await _run(server, processes, case) for _ in range(runs)]))
        if options.profile and "wunder" in options.parts:
            await profile_queue(server, processes, cases[0])
        return rows
    finally:
        server.remove()


async def _run(server: PostgresServer, processes: ProcessTree, case: QueueCase) -> Measured:
    measured = await queue_run(server, processes, case)
    numbers = measured.numbers
    wait = f", wait p95 {numbers['wait_p95_ms']:.1f} ms" if "wait_p95_ms" in numbers else ""
    wrong = f"PROBLEMS: {measured.problems}" if measured.problems else "correct"
    say(f"{case.label}: enqueue {numbers['enqueue_per_s']:.0f}/s, drain {numbers['drain_per_s']:.0f}/s{wait}, {wrong}")
    say("    cores: " + ", ".join(f"{numbers.get(f'cores_{k}', 0):.2f} {k}" for k in ("workers", "postgres", "others")))
    return measured


def _cases(options: Options) -> list[QueueCase]:
    """Equal concurrency; pgqueuer takes at most half of its tasks at once by a query."""
    few, many = options.tasks, options.long_tasks
    cases = [
        QueueCase(system="wunder", slots=32, batch=32, tasks=few, seconds=_TRICKLE_S),
        QueueCase(system="wunder", slots=400, batch=200, tasks=few, seconds=_TRICKLE_S),
        QueueCase(system="wunder", slots=32, batch=32, tasks=many, window="five_s"),
        QueueCase(system="wunder", slots=400, batch=200, tasks=many, window="five_s"),
        QueueCase(system="procrastinate", slots=32, batch=1, tasks=few, seconds=_TRICKLE_S),
        QueueCase(system="procrastinate", slots=400, batch=1, tasks=few),
        QueueCase(system="pgqueuer", slots=32, batch=16, tasks=few, seconds=_TRICKLE_S),
        QueueCase(system="pgqueuer", slots=400, batch=200, tasks=few),
    ]
    held = QueueCase(system="wunder", slots=32, batch=32, tasks=many, seconds=_HELD_S, window="five_s", held=True)
    return [*(case for case in cases if case.system in options.parts), *[held] * (HELD in options.parts)]


def _is_here(case: QueueCase) -> bool:
    if case.system == "wunder" or find_spec(case.system) is not None:
        return True
    say(f"{case.system} is not installed (pip install '.[bench]'): left out")
    return False
