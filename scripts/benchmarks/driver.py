"""The harness's side of a measurement: runs a client process and looks at all processes around what it measures."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from scripts.benchmarks.numbers import Numbers
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.processes import machine_cpu_s
from scripts.benchmarks.server import ROOT, Bench, end_process

_QUIET = 0.15
"""Cores that a server with nothing to do stays below."""


class Measured(msgspec.Struct):
    """One run: its numbers by name, and what was not as it should be."""

    numbers: Numbers
    problems: list[str]


class Client:
    """A client process that follows our lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self, state: str) -> dict[str, Any]:
        """The next line, which must be of this state."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client ended before it was {state} (see its errors above)")
        answer: dict[str, Any] = msgspec.json.decode(line)
        assert answer["state"] == state, answer
        return answer


@contextlib.contextmanager
def client(bench: Bench, plan: Plan) -> Iterator[Client]:
    """A client that is ready to measure."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.client"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    bench.processes.add(process.pid, "client")
    try:
        made = Client(process)
        made.tell(msgspec.json.encode(plan).decode())
        made.hear("ready")
        yield made
    finally:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        end_process(process, 5.0)
        bench.processes.remove(process.pid)


def measure(bench: Bench, plan: Plan, *, meanwhile: Callable[[], None] | None = None) -> Measured:
    """One run of a plan. `meanwhile` runs during it (a profiler)."""
    with client(bench, plan) as made:
        if plan.kind != "cancel":
            settle(bench)
        before, begin, busy = bench.processes.cpu(), time.monotonic(), machine_cpu_s()
        made.tell("measure")
        if meanwhile is not None:
            meanwhile()
        made.hear("measured")
        seconds, after, busy = time.monotonic() - begin, bench.processes.cpu(), machine_cpu_s() - busy
        memory = bench.processes.kinds()
        made.tell("report")
        report = made.hear("report")
        made.tell("end")
    numbers: Numbers = report["numbers"]
    problems: list[str] = report["problems"]
    used = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    numbers |= cpu_numbers(used, seconds, numbers.get("deltas", 0))
    numbers["cores_others"] = max(0.0, busy / seconds - numbers["cores_all"])
    server = [kind for name, kind in memory.items() if name not in ("client", "upstream", "postgres")]
    numbers["server_uss_mb"] = sum(kind.uss_mb for kind in server)
    numbers["session_actors"] = memory["session actors"].count if "session actors" in memory else 0
    for name in ("gateway", "session actors"):
        if name in memory:
            numbers[f"{name}_rss_mb"] = memory[name].rss_mb
    if "events" in numbers:
        numbers["events_per_s"] = numbers["events"] / seconds
    if plan.kind == "cancel":
        problems += _still_active(bench)
    return Measured(numbers, problems)


def warm_up(bench: Bench) -> None:
    """Make the server start all that it will (session actors beyond the first come with the first sessions)."""
    settle(bench)
    with client(bench, Plan(kind="stream", url=bench.url, streams=16, timeout_s=120.0)):
        pass
    settle(bench)


def settle(bench: Bench, patience_s: float = 60.0) -> None:
    """Wait until the server is quiet: what it started has started."""
    deadline, quiet = time.monotonic() + patience_s, 0
    while quiet < 2 and time.monotonic() < deadline:
        quiet = quiet + 1 if cores(bench, 1.0)["cores_server"] < _QUIET else 0
    if quiet < 2:
        print(f"note: the server was not quiet after {patience_s:g} s", flush=True)


def cores(bench: Bench, seconds: float) -> Numbers:
    """CPU use by kind over some seconds from now."""
    before, begin, busy = bench.processes.cpu(), time.monotonic(), machine_cpu_s()
    time.sleep(seconds)
    after, passed, busy = bench.processes.cpu(), time.monotonic() - begin, machine_cpu_s() - busy
    found = cpu_numbers({kind: after[kind] - before.get(kind, 0.0) for kind in after}, passed, 0)
    return {**found, "cores_others": max(0.0, busy / passed - found["cores_all"])}


def cpu_numbers(used: dict[str, float], seconds: float, deltas: float) -> Numbers:
    """CPU by kind: cores, and seconds per 1,000 deltas; `server` is all but client and upstream."""
    server = sum(cpu for kind, cpu in used.items() if kind not in ("client", "upstream"))
    found = {f"cores_{kind}": cpu / seconds for kind, cpu in used.items()}
    found |= {"cores_server": server / seconds, "cores_all": sum(used.values()) / seconds}
    if deltas:
        found |= {f"cpu_s_per_1000_{kind}": cpu / deltas * 1000 for kind, cpu in used.items()}
        found |= {"cpu_s_per_1000_server": server / deltas * 1000}
    return found


def _still_active(bench: Bench) -> list[str]:
    """Upstream must have been let go of by every cancelled turn."""
    deadline = time.monotonic() + 3
    while (active := bench.upstream_active()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"{active} upstream answers still run 3 s after the last cancel"] if active else []
