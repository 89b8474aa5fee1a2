"""Where the time of the bare queue goes: py-spy on a worker, and the database's own times by statement."""

from __future__ import annotations

import asyncio
import subprocess

import msgspec

from scripts.benchmarks.processes import ProcessTree
from scripts.benchmarks.profile import recorder, summary
from scripts.benchmarks.queue_runs import QueueCase, Workers, queue_run
from scripts.benchmarks.results import FOLDER, started
from tests.support.postgres import PostgresServer

_TASKS = 40_000
_SECONDS = 6.0


async def profile_queue(server: PostgresServer, processes: ProcessTree, case: QueueCase) -> None:
    """One more drain whose numbers do not count."""
    path = FOLDER / f"{started()}-profile-{case.system}-{case.slots}.folded"
    FOLDER.mkdir(exist_ok=True)
    recorders: list[subprocess.Popen[bytes]] = []

    def record(made: Workers) -> None:
        recorders.append(recorder(made.processes[0].pid, path, _SECONDS))

    await queue_run(server, processes, msgspec.structs.replace(case, tasks=_TASKS, seconds=0.0), record)
    await asyncio.to_thread(recorders[0].wait, 60)
    print(f"== {case.label}: {path.name}\n{summary(path)}", flush=True)
