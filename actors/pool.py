"""The plain object inside a `WorkerPool`: claims background tasks for its free slots, and runs each itself.

    woken (a task was queued, a slot is free, a task's time has come) ──► claim for the free slots, many at a time
        ──► each runs in its session, which this process owns meanwhile ──► finished and left, many at a time

A claim never takes more than there are free slots, so what waits can be run by any pool. Of tasks whose process has
died it runs one at a time, so that one which kills its process takes no other of them along. The lease is that of a
session host: renewed by a loop of its own, never by the work; a pool that loses it gives everything up, and the
janitor's sweep finds what it had claimed.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from actors.background import Background
from actors.drain_rate import DrainRate
from actors.errors import WunderError
from actors.gathering import Gathering
from actors.handles import DirectoryHandle, Reach, tell
from actors.histogram import Durations
from actors.loop import Loop
from actors.messages import Describe, Drain, PickUp, Wake, decode_command, encode
from actors.replies import Description, Draining, Reply, to_failed
from actors.session_host import SessionHost
from actors.turn_runner import FinishLine, Services
from storage.notifications import READY_TASKS
from storage.queue_writer import FinishedTurn
from storage.records import ClaimedTask, OwnerId, SessionId

_DUE_BATCH = 100
_FINISH_BATCH = 200
_LISTEN_AGAIN_S = 1.0


class PoolCounts(msgspec.Struct):
    """What a pool has done since it started."""

    claims: int = 0
    empty_claims: int = 0
    claimed: int = 0
    finished: int = 0


class WorkerPool:
    """At most `agent_queue.max_workers` tasks at a time."""

    def __init__(
        self, services: Services, directory: DirectoryHandle, reach: Reach, *, actor: str, node_id: str
    ) -> None:
        queue, sessions = services.settings.agent_queue, services.settings.sessions
        leased = msgspec.structs.replace(
            services.settings, sessions=msgspec.structs.replace(sessions, lease_s=queue.lease_s)
        )
        self._services = msgspec.structs.replace(services, settings=leased)
        self._settings = queue
        self._reach = reach
        self._directory = directory
        self._host = SessionHost(self._services, directory, reach, actor=actor, node_id=node_id, pool=True)
        self._finishes: FinishLine = Gathering(
            "finish-turns", self._finish, most=_FINISH_BATCH, apart=lambda error: not error.retryable
        )
        self._work = Background()
        self._side = Background()
        self._more = False
        self._suspects = 0
        self._unsure = False
        self._draining = False
        self._due_us: int | None = None
        self._claims = Loop("claim-tasks", self.claim_once, interval_s=queue.poll_interval_ms / 1000)
        self._promotions = Loop("promote-tasks", self.promote_once, interval_s=queue.poll_interval_ms / 1000)
        self._listening = Loop("listen-tasks", self.listen_once, interval_s=_LISTEN_AGAIN_S)
        self._timer: asyncio.TimerHandle | None = None
        self.counts = PoolCounts()
        self._waits, self._runs = Durations(), Durations()
        self._drain_rate = DrainRate()

    async def start(self) -> None:
        await self._host.start()
        self._promotions.start()
        self._claims.start()
        if self._services.store.notifies:
            self._listening.start()

    async def stop(self) -> None:
        """Claim no more, and give up what runs: it goes on elsewhere."""
        self._draining = True
        for loop in (self._listening, self._claims, self._promotions):
            await loop.stop()
        if self._timer is not None:
            self._timer.cancel()
        await self._side.stop()
        await self._host.stop()
        await self._work.stop()

    async def crash(self) -> None:
        """End as a killed process would (a fault point for tests)."""
        for loop in (self._listening, self._claims, self._promotions):
            await loop.stop()
        await self._host.crash()
        await self._work.stop()
        await self._side.stop()

    async def handle(self, data: bytes) -> bytes:
        """One command in, one reply out; errors travel as replies."""
        try:
            return encode(await self._take(data))
        except WunderError as error:
            return encode(to_failed(error))

    async def _take(self, data: bytes) -> Reply:
        command = decode_command(data)
        match command:
            case Wake():
                self._look()
                return Draining(per_s=self._drain_rate.per_s(self._services.clock.monotonic_s()))
            case Describe():
                return self._describe()
            case Drain():
                self._draining = True
                return await self._host.take(command)
            case _:
                return await self._host.take(command)

    async def listen_once(self) -> None:
        """Look for tasks whenever any process on this database says so, until the connection is lost."""
        await self._services.store.listen(READY_TASKS, self._look)

    def _look(self) -> None:
        """Look now for tasks that can run, and for those whose time has come."""
        self._more = True
        self._claims.wake()
        self._promotions.wake()

    # -- claiming ------------------------------------------------------------------------------------------------

    async def claim_once(self) -> None:
        """Fill the free slots, as far as there are tasks."""
        free = self._settings.max_workers - len(self._work)
        if free <= 0 or self._draining or not self._host.owner_id:
            return
        limit = min(free, self._settings.claim_batch)
        claimed, now_us = await self._claim(limit)
        self.counts.claims += 1
        self.counts.empty_claims += not claimed
        self.counts.claimed += len(claimed)
        self._more = len(claimed) == limit
        for task in claimed:
            self._suspects += task.task.suspect
            if task.task.attempt == 1:
                self._waits.add(max(0, now_us - task.task.created_us) / 1e6)
            self._work.start(self._run(task), f"task-{task.task.turn_id}")
        full = self._more or len(self._work) >= self._settings.max_workers
        self._drain_rate.waiting(full, self._services.clock.monotonic_s())
        if self._more and free > limit:
            self._claims.wake()

    async def _claim(self, limit: int) -> tuple[list[ClaimedTask], int]:
        """At most `limit` tasks. After a claim without an answer it is first found out what it has taken."""
        if self._unsure:
            await self._host.disown_unknown()
        now_us = self._services.clock.now_us()
        block = self._services.settings.sessions.seq_block
        self._unsure = True
        claimed = await self._services.store.claim_tasks(
            self._host.owner_id, limit=limit, seq_block=block, now_us=now_us, suspects=int(self._suspects == 0)
        )
        self._unsure = False
        return claimed, now_us

    async def _run(self, claimed: ClaimedTask) -> None:
        started_s = self._services.clock.monotonic_s()
        try:
            await self._host.run_claimed(claimed, self._finishes)
        finally:
            self.counts.finished += 1
            if claimed.task.suspect:
                self._suspects -= 1
                self._more = True  # the next one was left alone until now
            now_s = self._services.clock.monotonic_s()
            self._runs.add(now_s - started_s)
            self._drain_rate.finished(now_s)
            if self._more:
                # The slot is free when this task has ended, which is right after this.
                asyncio.get_running_loop().call_soon(self._claims.wake)

    async def _finish(self, turns: list[FinishedTurn]) -> list[bool]:
        done = await self._services.store.finish_and_leave(turns)
        self._more = True  # the next task of one of these sessions may be ready now
        return done

    # -- tasks whose time comes ----------------------------------------------------------------------------------

    async def promote_once(self) -> None:
        """Let due tasks into their lines, tell owners of theirs, and look again when the next one is due."""
        store, clock = self._services.store, self._services.clock
        promoted = await store.promote_due(limit=_DUE_BATCH, now_us=clock.now_us())
        for session_id, owner_id in promoted:
            if owner_id is not None:
                self._side.start(self._tell_owner(session_id, owner_id), f"due-{session_id}")
        if promoted:
            self._more = True
            self._claims.wake()
        self._set_timer(await store.next_due(), again=len(promoted) == _DUE_BATCH)

    def _set_timer(self, due_us: int | None, *, again: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_us is None:
            return
        in_s = 0.0 if again else max(0.0, (due_us - self._services.clock.now_us()) / 1e6)
        if in_s < self._settings.poll_interval_ms / 1000:
            self._timer = asyncio.get_running_loop().call_later(in_s, self._promotions.wake)

    async def _tell_owner(self, session_id: SessionId, owner_id: OwnerId) -> None:
        with contextlib.suppress(WunderError):
            actor = await self._directory.locate(session_id, owner_hint=owner_id)
            await tell(self._reach.actor(actor), PickUp(session_id=session_id), timeout_s=5.0)

    def _describe(self) -> Description:
        described = self._host.describe()
        gauges = {f"pool_{name}": float(value) for name, value in msgspec.structs.asdict(self.counts).items()}
        gauges |= {"pool_slots": float(self._settings.max_workers), "pool_slots_in_use": float(len(self._work))}
        histograms = {
            "wunder_task_wait_seconds": self._waits.histogram(),
            "wunder_task_run_seconds": self._runs.histogram(),
        }
        return Description(gauges={**described.gauges, **gauges}, info=described.info, histograms=histograms)
