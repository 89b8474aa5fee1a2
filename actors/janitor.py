"""The plain object inside the `Janitor`: reopens sessions without an owner, fires schedules, removes what is old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from actors.children import Children
from actors.clock import Clock
from actors.errors import OwnedElsewhere, SessionNotFound, WunderError
from actors.events import EXPIRING_KINDS
from actors.handles import DirectoryHandle, Reach, quietly, tell
from actors.logs import log
from actors.loop import Loop
from actors.messages import Describe, OpenSession, ScheduleChanged, Sweep, decode_command, encode
from actors.replies import Description, Done, Reply, to_failed
from actors.scheduler import Scheduler
from actors.settings import ActorSettings
from storage.records import SessionId
from storage.store import AsyncStorageBackend

_SWEEP_BATCH = 200
_SWEEP_PARALLEL = 16
_OPEN_TIMEOUT_S = 10.0
_RETENTION_S = 60.0
_CHILDREN_S = 5.0
_DELETE_BATCH = 2000
_OWNER_MEMORY_S = 3600.0


class Janitor:
    """The sweep (a crash's accepted turns go on elsewhere), the same for child tasks, the scheduler, and retention."""

    def __init__(
        self,
        settings: ActorSettings,
        store: AsyncStorageBackend,
        clock: Clock,
        directory: DirectoryHandle,
        reach: Reach,
        children: Children,
        scheduler: Scheduler,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._directory = directory
        self._reach = reach
        self._children = children
        self.scheduler = scheduler
        self._reopened = 0
        self._released = 0
        self._removed = 0
        self._sweep = Loop("sweep", self.sweep_once, interval_s=settings.sessions.sweep_s, max_backoff_s=5.0)
        self._family = Loop("children", children.sweep_once, interval_s=_CHILDREN_S)
        self._retention = Loop("retention", self.retain_once, interval_s=_RETENTION_S)

    async def start(self) -> None:
        await self._store.open()
        self._sweep.start()
        self.scheduler.start()
        self._family.start()
        self._retention.start()

    async def stop(self) -> None:
        await self._sweep.stop()
        await self.scheduler.stop()
        await self._family.stop()
        await self._retention.stop()
        await self._children.close()
        await self._store.close()

    async def handle(self, data: bytes) -> bytes:
        """One command in, one reply out; errors travel as replies."""
        try:
            return encode(self._dispatch(data))
        except WunderError as error:
            return encode(to_failed(error))

    def _dispatch(self, data: bytes) -> Reply:
        match decode_command(data):
            case Sweep():
                self._sweep.wake()
                return Done()
            case ScheduleChanged():
                self.scheduler.wake()
                return Done()
            case Describe():
                return self._describe()
            case other:
                raise WunderError(f"the janitor does not take {type(other).__name__}")

    def _describe(self) -> Description:
        gauges = {
            "sessions_reopened": self._reopened,
            "tasks_released": self._released,
            "rows_expired": self._removed,
        }
        return Description(gauges={name: float(value) for name, value in gauges.items()} | self.scheduler.gauges())

    async def sweep_once(self) -> None:
        """Leave background tasks without a live owner to the pools; open every other session that has work and none."""
        pools = self._settings.agent_queue.enabled
        orphans = await self._store.orphaned_sessions(limit=_SWEEP_BATCH, now_us=self._clock.now_us(), ready=not pools)
        if not orphans:
            return
        limit, before, released = asyncio.Semaphore(_SWEEP_PARALLEL), self._reopened, self._released

        async def take_care(session_id: SessionId) -> None:
            async with limit:
                if not (pools and await self._release(session_id)):
                    await self._reopen(session_id)

        await asyncio.gather(*(take_care(session_id) for session_id in orphans))
        if self._released > released:
            await quietly(self._directory.wake_pools())
        if len(orphans) == _SWEEP_BATCH and self._reopened + self._released > before + released:
            self._sweep.wake()

    async def _release(self, session_id: SessionId) -> bool:
        try:
            released = await self._store.release_orphan(session_id, now_us=self._clock.now_us())
        except WunderError as error:
            log.warning("release_failed", session=session_id, message=error.message)
            return True  # the next sweep tries again
        self._released += released
        return released

    async def _reopen(self, session_id: SessionId) -> None:
        try:
            actor = await self._directory.locate(session_id, orphaned=True)
            await tell(self._reach.actor(actor), OpenSession(session_id=session_id), timeout_s=_OPEN_TIMEOUT_S)
        except (OwnedElsewhere, SessionNotFound):
            return
        except WunderError as error:
            log.warning("reopen_failed", session=session_id, message=error.message)
            return
        self._reopened += 1
        log.info("session_reopened", session=session_id, actor=actor)

    async def retain_once(self) -> None:
        """Remove expired events, history, deliveries, credentials, keys and owners, in small batches."""
        store, storage, now_us = self._store, self._settings.storage, self._clock.now_us()
        before_us = now_us - int(storage.events_retention_s * 1e6)
        await self._remove(lambda: store.delete_events(kinds=EXPIRING_KINDS, before_us=before_us, limit=_DELETE_BATCH))
        runs_before_us = now_us - int(self._settings.schedules.history_retention_s * 1e6)
        await self._remove(lambda: store.delete_old_runs(runs_before_us, limit=_DELETE_BATCH))
        outbox_before_us = now_us - int(storage.outbox_retention_s * 1e6)
        await self._remove(lambda: store.delete_outbox(before_us=outbox_before_us, limit=_DELETE_BATCH))
        self._removed += await store.delete_expired_credentials(now_us)
        await store.forget_idempotency_keys(now_us - int(storage.idempotency_retention_s * 1e6))
        await store.delete_channel_messages(now_us - int(storage.channel_messages_retention_s * 1e6))
        await store.delete_lapsed_owners(older_than_s=_OWNER_MEMORY_S)

    async def _remove(self, remove: Callable[[], Awaitable[int]]) -> None:
        """Batch after batch until one is not full."""
        while True:
            removed = await remove()
            self._removed += removed
            if removed < _DELETE_BATCH:
                break
