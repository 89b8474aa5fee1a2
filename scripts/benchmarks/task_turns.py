"""Whole agent turns: `wunder serve` on Ray with Postgres, tasks drained by its pools, and a trickle over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import asyncpg
import msgspec
import uvloop

from actors.messages import Submit
from actors.task_request import task_of
from scripts.benchmarks.driver import Measured, settle
from scripts.benchmarks.numbers import Numbers, percentiles
from scripts.benchmarks.plan import API_KEY, Script
from scripts.benchmarks.processes import machine_cpu_s
from scripts.benchmarks.profile import recorder, summary
from scripts.benchmarks.queue_plan import Windows
from scripts.benchmarks.queue_runs import GROUP
from scripts.benchmarks.queue_wunder import open_store
from scripts.benchmarks.results import FOLDER, Row, row, started
from scripts.benchmarks.scenarios import Options, say
from scripts.benchmarks.server import ROOT, Bench, end_process, running
from storage.records import NewTask, SessionId, SessionRecord, TurnId, UserId

_USERS = 50
_WORKERS = 64
_POLL_MS = 120_000.0
"""So rarely that pools find tasks because they are woken: a lost wake would be seen in the waits."""
_WARM_UP = 300
_TRICKLE_S = 15.0
_RATE = 100.0
_PATIENCE_S = 300.0
_ids = itertools.count()


class Peer:
    """The process that speaks to the server's pools over Ray."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.hear()

    def ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the peer ended (see its errors above)")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer


@contextlib.contextmanager
def peer(bench: Bench) -> Iterator[Peer]:
    """A peer in the server's cluster."""
    data_dir = bench.folder / "data"
    arguments = [
        bench.ray_address(),
        str(data_dir / "ray_auth_token"),
        str(bench.folder / "wunder.yaml"),
        str(data_dir),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.cluster_peer", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    bench.processes.add(process.pid, "client")
    try:
        yield Peer(process)
    finally:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        end_process(process, 10.0)
        bench.processes.remove(process.pid)


def turn_rows(options: Options) -> tuple[list[Row], dict[str, Any]]:
    """One pool, then (on the same server) a second one beside it."""
    settings = {
        "agent_queue__max_workers": _WORKERS,
        "agent_queue__claim_batch": _WORKERS,
        "agent_queue__poll_interval_ms": _POLL_MS,
        "agent_queue__max_queued": 1_000_000,
        "agent_queue__max_queued_per_user": 1_000_000,
        "llm__models": {"scripted": {"provider": "scripted", "scripted_delay_ms": 0.0}},
        "llm__default": "scripted",
    }
    server = msgspec.structs.replace(options.server(**settings), storage="postgres")
    rows = []
    with running(server) as bench, peer(bench) as joined:
        say(f"server ready after {bench.start_s:.1f} s")
        for pools in (1, 2):
            if pools == 2:
                say(f"a second pool: {joined.ask('pool')}")
            turns = Turns(bench, joined, pools)
            uvloop.run(turns.warm_up())
            settle(bench)
            runs = [uvloop.run(turns.measure(options.tasks)) for _ in range(options.runs)]
            rows.append(row(f"turns, {pools} pool{'s' * (pools > 1)} of {_WORKERS}", runs))
            if options.profile:
                uvloop.run(turns.profile(options.tasks))
        return rows, bench.settings


class Turns:
    """Runs against one server. The question asks for one word, whichever model answers."""

    def __init__(self, bench: Bench, joined: Peer, pools: int) -> None:
        self._bench = bench
        self._peer = joined
        self._url = bench.settings["storage"]["url"]
        self._pools = pools
        scripted = bench.settings["llm"]["default"] == "scripted"
        self._question = "echo done" if scripted else Script(deltas=1).text()

    async def warm_up(self) -> None:
        await self._drain(_WARM_UP)

    async def measure(self, count: int) -> Measured:
        """Drain `count` tasks, then a trickle over HTTP."""
        numbers, problems = await self._drain(count)
        say(f"{self._pools} pools: enqueue {numbers['enqueue_per_s']:.0f}/s, drain {numbers['drain_per_s']:.0f}/s")
        trickled, wrong = await self._trickle()
        numbers |= trickled
        problems += wrong
        waits = ", ".join(f"{name} {numbers[name]:.1f}" for name in ("wait_p50_ms", "wait_p95_ms", "turn_p95_ms"))
        say(f"    {waits}, {f'PROBLEMS: {problems}' if problems else 'correct'}")
        shown = ("pools", "postgres", "gateway", "server", "others")
        say("    cores: " + ", ".join(f"{numbers.get(f'cores_{kind}', 0):.2f} {kind}" for kind in shown))
        return Measured(numbers, problems)

    async def profile(self, count: int) -> None:
        """One more drain with py-spy on a pool; its numbers do not count."""
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{started()}-profile-turns-{self._pools}.folded"
        recorders: list[subprocess.Popen[bytes]] = []

        def record() -> None:
            recorders.append(recorder(self._bench.processes.of_kind("pools")[0], path, 6.0))
            time.sleep(2.0)  # py-spy reads symbols first

        await self._drain(count, record)
        await asyncio.to_thread(recorders[0].wait, 60)
        print(f"== turns, {self._pools} pools: {path.name}\n{summary(path)}", flush=True)

    async def _drain(self, count: int, before_it: Callable[[], None] = lambda: None) -> tuple[Numbers, list[str]]:
        """Filled unseen (the pools wait for a wake, and poll rarely); then the pools are woken."""
        bench, store = self._bench, open_store(self._url)
        store._db.notify = lambda topic: None  # type: ignore[method-assign]  # nobody is to hear of them yet
        await store.open()
        connection = await asyncpg.connect(self._url)
        described = self._peer.ask("describe")
        try:
            items, begin = [self._task() for _ in range(count)], time.monotonic()
            for first in range(0, count, GROUP):
                await store.enqueue_tasks(items[first : first + GROUP], now_us=time.time_ns() // 1000)
            numbers = {"enqueue_per_s": count / (time.monotonic() - begin)}
            await connection.execute("CHECKPOINT")
            before_it()
            before, busy = bench.processes.cpu(), machine_cpu_s()
            woken_us, begin = time.time_ns() // 1000, time.monotonic()
            self._peer.ask("wake")
            await _until_done(connection)
            seconds, after, busy = time.monotonic() - begin, bench.processes.cpu(), machine_cpu_s() - busy
            turn_ids = [item.task.turn_id for item in items]
            times = "SELECT started_us, finished_us FROM tasks WHERE turn_id = ANY($1) ORDER BY finished_us"
            rows = await connection.fetch(times, turn_ids)
            problems = await _problems(connection, turn_ids)
        finally:
            await connection.close()
            await store.close()
        if early := sum(one["started_us"] < woken_us for one in rows):
            problems.append(f"{early} tasks were started before the pools were woken")
        numbers |= {"drain_per_s": count / seconds, "drain_s": seconds}
        numbers |= _evenness(woken_us, [one["finished_us"] for one in rows])
        numbers |= _cores(before, after, busy, seconds)
        numbers |= _statements(described, self._peer.ask("describe"), count)
        return numbers, problems

    def _task(self) -> NewTask:
        """What the gateway would record for this question."""
        number, now_us = next(_ids), time.time_ns() // 1000
        command = Submit(
            session_id=SessionId(f"bench-session-{number:08}"),
            user_id=UserId(f"bench-{number % _USERS}"),
            turn_id=TurnId(f"bench-turn-{number:08}"),
            content=self._question,
            create=True,
        )
        task = msgspec.structs.replace(task_of(command, "queued", 0, now_us), origin="task", max_attempts=4)
        session = SessionRecord(
            session_id=command.session_id, user_id=command.user_id, created_us=now_us, updated_us=now_us
        )
        return NewTask(task=task, session=session, event=b'{"position":1,"reason":"background"}')

    async def _trickle(self) -> tuple[Numbers, list[str]]:
        """Tasks over HTTP at a steady rate: from the request to the turn's start, and to its end."""
        before, busy, begin = self._bench.processes.cpu(), machine_cpu_s(), time.monotonic()
        sent_us, refused = await self._submit(int(_RATE * _TRICKLE_S))
        seconds, after, busy = time.monotonic() - begin, self._bench.processes.cpu(), machine_cpu_s() - busy
        connection = await asyncpg.connect(self._url)
        try:
            await _until_done(connection)
            rows = await connection.fetch(
                "SELECT t.turn_id, t.finished_us, e.created_us AS start_us FROM tasks t JOIN events e ON "
                "e.session_id = t.session_id AND e.kind = 'queue_start' WHERE t.turn_id = ANY($1)",
                list(sent_us),
            )
            problems = [*refused[:3], *await _problems(connection, list(sent_us))]
        finally:
            await connection.close()
        waits = [(one["start_us"] - sent_us[one["turn_id"]]) * 1000 for one in rows]
        turns = [(one["finished_us"] - sent_us[one["turn_id"]]) * 1000 for one in rows]
        cores = {f"trickle_{name}": value for name, value in _cores(before, after, busy, seconds).items()}
        return {**percentiles("wait", waits), **percentiles("turn", turns), **cores}, problems

    async def _submit(self, count: int) -> tuple[dict[str, int], list[str]]:
        """When each task was sent, and what was refused."""
        sent_us: dict[str, int] = {}
        refused: list[str] = []
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session:

            async def one(number: int) -> None:
                body = {"question": self._question, "user_id": f"bench-{number % _USERS}"}
                sent = time.time_ns() // 1000
                async with session.post(f"{self._bench.url}/wunder/tasks", json=body) as response:
                    answer = await response.json()
                if response.status == 202:
                    sent_us[answer["data"]["task_id"]] = sent
                else:
                    refused.append(f"HTTP {response.status}: {answer}")

            begin = loop.time()
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    await asyncio.sleep(begin + number / _RATE - loop.time())
                    group.create_task(one(number))
        return sent_us, refused


async def _until_done(connection: asyncpg.Connection) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while await connection.fetchval("SELECT EXISTS (SELECT 1 FROM tasks WHERE status IN ('queued', 'running'))"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"tasks are left after {_PATIENCE_S:g} s")
        await asyncio.sleep(0.05)


async def _problems(connection: asyncpg.Connection, turn_ids: list[str]) -> list[str]:
    """Every task succeeded at its first attempt, with one end, one start and two messages."""
    tasks = await connection.fetchval(
        "SELECT count(*) FROM tasks WHERE turn_id = ANY($1) AND status = 'succeeded' AND attempt = 1 AND crashes = 0 "
        "AND answer <> ''",
        turn_ids,
    )
    kinds = "SELECT kind, count(*) AS n FROM events WHERE session_id IN (SELECT session_id FROM tasks WHERE turn_id = "
    kinds += "ANY($1)) AND kind IN ('queue_start', 'turn_terminal') GROUP BY kind"
    found = {one["kind"]: one["n"] for one in await connection.fetch(kinds, turn_ids)}
    said = await connection.fetchval("SELECT count(*) FROM messages WHERE turn_id = ANY($1)", turn_ids)
    expected = len(turn_ids)
    seen = {"succeeded at once": tasks, "starts": found.get("queue_start", 0), "ends": found.get("turn_terminal", 0)}
    seen["questions and answers"] = said / 2
    return [f"{name}: {count:g} of {expected}" for name, count in seen.items() if count != expected]


def _evenness(begin_us: int, ends_us: list[int]) -> Numbers:
    windows = Windows()
    windows.add(begin_us / 1e6, 0)
    for number, end_us in enumerate(ends_us):
        windows.add(end_us / 1e6, number + 1)
    return {**windows.numbers(1.0, "drain_one_s"), **windows.numbers(5.0, "drain_five_s")}


def _cores(before: dict[str, float], after: dict[str, float], busy: float, seconds: float) -> Numbers:
    used = {kind: (after[kind] - before.get(kind, 0.0)) / seconds for kind in after}
    server = sum(value for kind, value in used.items() if kind not in ("client", "upstream"))
    found = {f"cores_{kind}": value for kind, value in used.items()}
    return {**found, "cores_server": server, "cores_others": max(0.0, busy / seconds - sum(used.values()))}


def _statements(before: dict[str, Any], after: dict[str, Any], count: int) -> Numbers:
    """What the pools have sent for these tasks, in all and by query."""
    sent = {name: n - before["statements"].get(name, 0) for name, n in after["statements"].items()}
    by_name = {f"statements_{name}": n / count for name, n in sent.items() if n}
    return {"statements_per_task": sum(sent.values()) / count, **by_name}
