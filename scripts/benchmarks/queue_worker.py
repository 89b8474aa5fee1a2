"""A queue worker process: `python -m scripts.benchmarks.queue_worker`, told what to do in lines on stdin."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import uvloop

from scripts.benchmarks.queue_plan import QueuePlan, QueueReport, Tally

WORKERS = 2


class Handler:
    """The no-op task: notes how long it has waited, and that it ran."""

    def __init__(self, plan: QueuePlan) -> None:
        self.waits_ns: list[int] = []
        self._tally = Tally(Path(plan.tally), WORKERS)
        self._number = plan.number

    def __call__(self, stamp_ns: int) -> None:
        self.waits_ns.append(time.monotonic_ns() - stamp_ns)
        self._tally.put(self._number, len(self.waits_ns))


class Control:
    """The harness's lines: `go`, any number of `wake`, `stop`."""

    def __init__(self) -> None:
        self._go = asyncio.Event()
        self.stopped = asyncio.Event()
        self.on_wake: Callable[[], None] = lambda: None

    async def ready(self) -> None:
        """Say that everything is connected, and wait for `go`."""
        gc.collect()
        print("ready", flush=True)
        await self._go.wait()

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Follow the lines until `stop`."""
        while (line := (await reader.readline()).strip()) not in (b"", b"stop"):
            if line == b"go":
                self._go.set()
            else:
                self.on_wake()
        self._go.set()
        self.stopped.set()


class Consumer(Protocol):
    """A queue's worker: connects, is ready, works until it is stopped; its queries by name."""

    async def __call__(self, plan: QueuePlan, handler: Handler, control: Control) -> dict[str, int]: ...


async def run() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    plan = msgspec.json.decode(await reader.readline(), type=QueuePlan)
    consume: Consumer = importlib.import_module(f"scripts.benchmarks.queue_{plan.system}").consume
    handler, control = Handler(plan), Control()
    following = asyncio.create_task(control.read(reader), name="control")
    statements = await consume(plan, handler, control)
    await following
    report = QueueReport(
        handled=len(handler.waits_ns), waits_ns=handler.waits_ns, statements=statements, cpu_s=time.process_time()
    )
    print(msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(run())
