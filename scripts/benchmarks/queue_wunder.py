"""Wunder's bare queue: the store's own claim and completion as `actors.pool` calls them, around a no-op handler.

Each task has a session of its own. Its completion is fenced and writes the task, its session and one terminal event.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import asyncpg

from actors.background import Background
from actors.gathering import Gathering
from actors.loop import Loop
from scripts.benchmarks.queue_plan import QueuePlan
from scripts.benchmarks.queue_worker import Control, Handler
from storage.factory import create_store
from storage.queue_writer import FinishedTurn
from storage.records import (
    ClaimedTask,
    EventRecord,
    Fence,
    NewTask,
    OwnerId,
    SessionId,
    SessionRecord,
    TaskRecord,
    TurnId,
    UserId,
)
from storage.settings import StorageSettings
from storage.store import AsyncStorageBackend
from storage.turn_writer import Completion

WAKES = True
USERS = 50
_SEQ_BLOCK = 4096
_FINISH_BATCH = 200
_POLL_S = 2.0
_QUEUED = b'{"position":1,"reason":"background"}'
_ENDED = b'{"status":"succeeded","stop_reason":"stop"}'


def open_store(url: str) -> AsyncStorageBackend:
    """A store with patience for a benchmark's statements."""
    return create_store(StorageSettings(url=url, command_timeout_s=60.0, slow_statement_ms=60_000.0))


class Producer:
    """Enqueues tasks into sessions of their own, spread over some users."""

    version = version("wunder")

    def __init__(self, url: str) -> None:
        self._url = url
        self._store = open_store(url)
        self._numbers = itertools.count()

    async def open(self) -> None:
        await self._store.open()
        await self._store.migrate()

    async def close(self) -> None:
        await self._store.close()

    async def enqueue(self, count: int) -> None:
        now_us = time.time_ns() // 1000
        await self._store.enqueue_tasks([self._task(now_us) for _ in range(count)], now_us=now_us)

    def _task(self, now_us: int) -> NewTask:
        number = next(self._numbers)
        user_id, session_id = UserId(f"user-{number % USERS}"), SessionId(f"session-{number:08}")
        task = TaskRecord(
            turn_id=TurnId(f"turn-{number:08}"),
            session_id=session_id,
            user_id=user_id,
            status="queued",
            request=b'{"stamp":%d}' % time.monotonic_ns(),
            created_us=now_us,
            origin="task",
        )
        session = SessionRecord(session_id=session_id, user_id=user_id, created_us=now_us, updated_us=now_us)
        return NewTask(task=task, session=session, event=_QUEUED)

    async def problems(self, expected: int) -> list[str]:
        """What the database says against: every task ran once and ended once."""
        connection = await asyncpg.connect(self._url)
        try:
            tasks = await connection.fetchval(
                "SELECT count(*) FROM tasks WHERE status = 'succeeded' AND attempt = 1 AND crashes = 0 AND NOT ready"
            )
            ends = await connection.fetchval("SELECT count(*) FROM events WHERE kind = 'turn_terminal'")
            owned = await connection.fetchval("SELECT count(*) FROM sessions WHERE owner_id IS NOT NULL")
        finally:
            await connection.close()
        found = {"tasks that succeeded at once": tasks, "terminal events": ends}
        problems = [f"{name}: {count} of {expected}" for name, count in found.items() if count != expected]
        return problems + ([f"{owned} sessions are still owned"] if owned else [])

    async def unfinished(self) -> bool:
        return bool((await self._store.queue_depth([], most=1)).total or await self._running())

    async def _running(self) -> bool:
        return bool(await self._store.running_tasks())


class Pool:
    """The claiming of `actors.pool.WorkerPool`, without sessions, models and streams."""

    def __init__(self, plan: QueuePlan, store: AsyncStorageBackend, handler: Handler) -> None:
        self._plan = plan
        self._store = store
        self._handler = handler
        self._owner = OwnerId(f"pool-{plan.number}")
        self._work = Background()
        self._more = False
        self._finishes: Gathering[FinishedTurn, bool] = Gathering("finish", self._finish, most=_FINISH_BATCH)
        self.claims = Loop("claim-tasks", self._claim_once, interval_s=_POLL_S)

    async def start(self) -> None:
        await self._store.register_owner(self._owner, "node", lease_s=3600)

    def wake(self) -> None:
        self._more = True
        self.claims.wake()

    async def stop(self) -> None:
        await self.claims.stop()
        await self._work.stop()

    async def _claim_once(self) -> None:
        free = self._plan.slots - len(self._work)
        if free <= 0:
            return
        limit = min(free, self._plan.batch)
        claimed = await self._store.claim_tasks(
            self._owner, limit=limit, seq_block=_SEQ_BLOCK, now_us=time.time_ns() // 1000
        )
        self._more = len(claimed) == limit
        for task in claimed:
            self._work.start(self._run(task), "task")
        if self._more and free > limit:
            self.claims.wake()

    async def _run(self, claimed: ClaimedTask) -> None:
        try:
            self._handler(int(claimed.task.request[9:-1]))
            if not await self._finishes.ask(_finished(claimed)):
                raise RuntimeError(f"{claimed.task.turn_id} was not ours to finish")
        finally:
            if self._more:
                asyncio.get_running_loop().call_soon(self.claims.wake)

    async def _finish(self, turns: list[FinishedTurn]) -> Sequence[bool]:
        done = await self._store.finish_and_leave(turns)
        self._more = True
        return done


def _finished(claimed: ClaimedTask) -> FinishedTurn:
    task, opened, now_us = claimed.task, claimed.opened, time.time_ns() // 1000
    end: dict[str, Any] = {"answer": None, "error": None, "usage": None, "stop_reason": "stop"}
    event = EventRecord(
        session_id=task.session_id,
        first_seq=opened.first_seq,
        seq=opened.first_seq,
        turn_id=task.turn_id,
        kind="turn_terminal",
        data=_ENDED,
        created_us=now_us,
    )
    return FinishedTurn(
        fence=Fence(task.session_id, opened.session.epoch),
        end=Completion(turn_id=task.turn_id, attempt=task.attempt, status="succeeded", now_us=now_us, **end),
        last_seq=opened.first_seq,
        events=(event,),
    )


async def consume(plan: QueuePlan, handler: Handler, control: Control) -> dict[str, int]:
    """See `Consumer`."""
    store = open_store(plan.url)
    await store.open()
    pool = Pool(plan, store, handler)
    await pool.start()
    control.on_wake = pool.wake
    await control.ready()
    before = dict(store.statements())
    pool.claims.start()
    await control.stopped.wait()
    await pool.stop()
    counts = {name: count - before.get(name, 0) for name, count in store.statements().items()}
    await store.close()
    return counts
