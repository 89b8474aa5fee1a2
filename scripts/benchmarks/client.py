"""The client process: `python -m scripts.benchmarks.client`, told what to do in lines on stdin."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from typing import Any

import msgspec
import uvloop

from scripts.benchmarks.loads import LOADS
from scripts.benchmarks.numbers import Numbers, percentiles
from scripts.benchmarks.plan import Plan

_LAG_S = 0.01


class Lag:
    """How late this process's own event loop is: what it would add to every measured delay."""

    def __init__(self) -> None:
        self._late_ns: list[int] = []
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due = time.monotonic() + _LAG_S
        self._timer = asyncio.get_running_loop().call_later(_LAG_S, self._tick)

    def stop(self) -> Numbers:
        if self._timer is not None:
            self._timer.cancel()
        return percentiles("client_lag", self._late_ns)

    def _tick(self) -> None:
        late_s = time.monotonic() - self._due
        self._late_ns.append(max(0, int(late_s * 1e9)))
        self.start()


async def _line() -> str:
    return (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).strip()


def _say(state: str, **fields: Any) -> None:
    print(msgspec.json.encode({"state": state, **fields}).decode(), flush=True)


async def run() -> None:
    """prepare ► "ready" ► measure ► "measured" ► report; between them the harness looks at the processes."""
    plan = msgspec.json.decode(await _line(), type=Plan)
    load = LOADS[plan.kind](plan)
    await load.prepare()
    _say("ready")
    await _line()
    gc.collect()
    gc.disable()
    lag = Lag()
    lag.start()
    begin = time.monotonic()
    await load.measure()
    seconds = time.monotonic() - begin
    _say("measured")
    numbers = {"seconds": seconds, **lag.stop()}
    await _line()
    report = load.report()
    _say("report", numbers={**report.numbers, **numbers}, problems=report.problems)
    await _line()


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    uvloop.run(run())


if __name__ == "__main__":
    main()
