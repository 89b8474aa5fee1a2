"""Faults, drawn from a seed.

- kill: SIGKILL to a pool; the supervisor starts another
- stop: SIGSTOP to a pool for longer than its lease, then SIGCONT
- stall: a completion, and what the pool sends to the database after it, arrives when its lease has ended (a crash of
  the database would take it along, so there is none meanwhile)
- restart: `pg_ctl restart -m immediate`: Postgres crashes and recovers
- terminate: pg_terminate_backend of a random connection, twice a second for a while

Each kind has a lane of its own, so that they overlap as they would anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable

import asyncpg
import msgspec

from scripts.chaos_runs.arena import Arena, Lease
from scripts.chaos_runs.options import Fault

_LOOK_S = 3.0
_ARRIVAL_S = 0.5
_DATABASE_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class Injected(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: when (also since the first one could come), what, whom, and how many tasks its victim was running."""

    at_s: float
    at_us: int
    kind: Fault
    target: str
    hit: int = 0


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A task's session that had to find another owner from this moment on."""

    kind: Fault
    session_id: str
    at_us: int


class Lane(msgspec.Struct, frozen=True):
    """Seconds before the first fault of a kind and between two of them, and how many a run must have had."""

    first_s: float
    between_s: tuple[float, float]
    least: int


LANES: dict[Fault, Lane] = {
    "kill": Lane(2.0, (4.0, 8.0), 1),
    "stop": Lane(4.0, (18.0, 30.0), 1),
    "stall": Lane(3.0, (18.0, 30.0), 1),
    "restart": Lane(6.0, (18.0, 30.0), 2),
    "terminate": Lane(10.0, (25.0, 40.0), 1),
}


class Faults:
    """`run` until `over` is set; what has begun then is brought to its end, so that the stopped ones wake."""

    def __init__(self, arena: Arena, say: Callable[[str], None]) -> None:
        self._arena = arena
        self._say = say
        self._begin_s = time.monotonic()
        self._hurt: set[int] = set()
        self._crashing = asyncio.Lock()
        self.over = asyncio.Event()
        self.injected: list[Injected] = []
        self.hits: list[Hit] = []

    async def run(self) -> None:
        self._begin_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for kind in self._arena.options.faults:
                group.create_task(self._lane(kind))

    async def _lane(self, kind: Fault) -> None:
        options, lane = self._arena.options, LANES[kind]
        chance = random.Random(f"{options.seed}:{kind}")
        inject: dict[Fault, Callable[[random.Random], Awaitable[None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "stall": self._stall,
            "restart": self._restart,
            "terminate": self._terminate,
        }
        pause_s = lane.first_s
        while not await self._over_within(pause_s / options.pace):
            await inject[kind](chance)
            pause_s = chance.uniform(*lane.between_s)

    async def _over_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)
        return self.over.is_set()

    def _choose(self, chance: random.Random) -> Lease | None:
        """A pool that is well and has tasks to lose, the same for the same seed if the same ones live."""
        pools = {pid: lease for pid, lease in self._arena.pools().items() if pid not in self._hurt}
        chosen = chance.random()
        ordered = sorted(pools.values(), key=lambda lease: lease.number)
        return ordered[int(chosen * len(ordered))] if ordered else None

    async def _note(self, kind: Fault, target: str, victim: Lease | None = None) -> None:
        """Write it down, with the sessions that the victim owned."""
        at_s, at_us = time.monotonic() - self._begin_s, time.time_ns() // 1000
        owned = await self._owned(victim) if victim is not None else []
        self.hits += [Hit(kind=kind, session_id=session_id, at_us=at_us) for session_id in owned]
        self.injected.append(Injected(at_s=round(at_s, 3), at_us=at_us, kind=kind, target=target, hit=len(owned)))
        self._say(f"    {at_s:6.1f} s  {kind} {target}{f', it ran {len(owned)} tasks' if victim else ''}")

    async def _owned(self, victim: Lease) -> list[str]:
        """The victim writes nothing any more: what the database says now, or when it is back, is what it leaves."""
        until_s = time.monotonic() + _LOOK_S
        while time.monotonic() < until_s:
            with contextlib.suppress(*_DATABASE_AWAY):
                connection = await self._arena.connect()
                try:
                    owned = "SELECT session_id FROM sessions WHERE owner_id = $1"
                    rows = await connection.fetch(owned, victim.owner, timeout=_LOOK_S)
                    return [row["session_id"] for row in rows]
                finally:
                    await connection.close(timeout=_LOOK_S)
            await asyncio.sleep(0.1)
        return []

    async def _kill(self, chance: random.Random) -> None:
        if (pool := self._choose(chance)) is not None:
            os.kill(pool.pid, signal.SIGKILL)
            await self._note("kill", f"{pool.pool} (pid {pool.pid})", pool)

    async def _stop(self, chance: random.Random) -> None:
        seconds = self._beyond_the_lease(chance)
        if (pool := self._choose(chance)) is None:
            return
        self._hurt.add(pool.pid)
        os.kill(pool.pid, signal.SIGSTOP)
        try:
            await self._note("stop", f"{pool.pool} (pid {pool.pid}) for {seconds:.1f} s", pool)
            await asyncio.sleep(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # the supervisor replaces one that is silent for long
                os.kill(pool.pid, signal.SIGCONT)
            self._hurt.discard(pool.pid)

    async def _stall(self, chance: random.Random) -> None:
        seconds = self._beyond_the_lease(chance)
        async with self._crashing:
            if (pool := self._choose(chance)) is None:
                return
            self._hurt.add(pool.pid)
            self._arena.proxies.tell(f"stall {pool.number}")
            try:
                await self._note("stall", f"line of {pool.pool} for {seconds:.1f} s", pool)
                await asyncio.sleep(seconds)
            finally:
                self._arena.proxies.tell(f"flow {pool.number}")
                self._hurt.discard(pool.pid)
            await asyncio.sleep(_ARRIVAL_S)

    def _beyond_the_lease(self, chance: random.Random) -> float:
        return self._arena.options.lease_s * chance.uniform(1.5, 2.0)

    async def _restart(self, chance: random.Random) -> None:
        async with self._crashing:
            await self._note("restart", "postgres, immediate")
            await asyncio.to_thread(self._arena.postgres.restart, "immediate")

    async def _terminate(self, chance: random.Random) -> None:
        seconds, ended = chance.uniform(8.0, 12.0), 0
        await self._note("terminate", f"2 connections a second for {seconds:.0f} s")
        for _ in range(int(seconds * 2)):
            if await self._over_within(0.5):
                break
            with contextlib.suppress(*_DATABASE_AWAY):
                connection = await self._arena.connect()
                try:
                    ended += await self._terminate_one(connection, chance.random())
                finally:
                    await connection.close(timeout=_LOOK_S)
        self._say(f"              terminate: {ended} connections ended")

    async def _terminate_one(self, connection: asyncpg.Connection, chosen: float) -> int:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'wunder' ORDER BY backend_start, pid"
        rows = await connection.fetch(query, timeout=_LOOK_S)
        if not rows:
            return 0
        pid = rows[int(chosen * len(rows))]["pid"]
        return int(await connection.fetchval("SELECT pg_terminate_backend($1)", pid, timeout=_LOOK_S))
