"""`StreamEventWriter`: writes a process's live events behind their announcement, in batches.

    session A: [7..19 "Hello, wor"]            wake at batch_size events            one transaction
    session B: [3 progress][4..9 "thin"]  ---> or flush_interval_ms after     --->  append_events(A, B, ...)
                                               the first

Adding never waits and never writes: the flush loop is the only one that calls the store, so pressure of the database
never reaches a request. In a session order is kept; `take` is the barrier before a durable commit: it hands the
session's unwritten events to the committer, after what was under way has ended.

When the store cannot keep up, `delta_overflow` decides: `drop_oldest` and `drop_latest` lose deltas only (readers of
the store are told by a `gap`; live readers lose nothing), `block_with_timeout` makes the producer wait in `room`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from storage.errors import StorageError
from storage.records import EventBatch, EventRecord, Fence, SessionId, TurnId
from storage.segments import Segment
from storage.store import EventStorage

Policy = Literal["block_with_timeout", "drop_oldest", "drop_latest"]
MAX_PARTS = 512
"""A segment longer than this is closed, so that one row stays small."""


class WriterSettings(Protocol):
    """The part of the settings that the writer reads."""

    @property
    def batch_size(self) -> int: ...
    @property
    def flush_interval_ms(self) -> float: ...
    @property
    def max_pending(self) -> int: ...
    @property
    def delta_overflow(self) -> Policy: ...
    @property
    def block_timeout_s(self) -> float: ...


class WriterCounts(msgspec.Struct):
    """What the writer has done since it started."""

    events: int = 0
    rows: int = 0
    flushes: int = 0
    failures: int = 0
    dropped: int = 0
    stale: int = 0


class _Bucket:
    """The unwritten events of one session, oldest first; the last may be a growing segment."""

    __slots__ = ("fence", "items", "since_s")

    def __init__(self, fence: Fence, since_s: float) -> None:
        self.fence = fence
        self.items: deque[Segment | EventRecord] = deque()
        self.since_s = since_s


class StreamEventWriter:
    """One per process. `on_stored(session, seq)` and `on_stale(session)` are called on the loop."""

    def __init__(
        self,
        store: EventStorage,
        settings: WriterSettings,
        monotonic_s: Callable[[], float],
        *,
        on_stored: Callable[[SessionId, int], None],
        on_stale: Callable[[SessionId, int], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._on_stored = on_stored
        self._on_stale = on_stale
        self._buckets: dict[SessionId, _Bucket] = {}
        self._pending = 0
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._flushing: Mapping[SessionId, _Bucket] = {}
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._refused = 0
        self.counts = WriterCounts()

    @property
    def depth(self) -> int:
        """Events that are not stored yet."""
        return self._pending

    def age_s(self) -> float:
        """How long the oldest unwritten event has waited."""
        buckets = [*self._buckets.values(), *self._flushing.values()]
        return max((self._monotonic_s() - b.since_s for b in buckets), default=0.0)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="stream-event-writer")

    async def stop(self) -> None:
        """Write what is left, then end; what the store refuses now is lost with the process."""
        self._closing = True
        self._wake.set()
        self._full.set()
        if self._task is not None:
            await self._task

    def crash(self) -> None:
        """End as a killed process would: what is unwritten is lost (a fault point for tests)."""
        if self._task is not None:
            self._task.cancel()

    def add_delta(
        self,
        fence: Fence,
        turn_id: TurnId,
        kind: str,
        head: dict[str, Any],
        field: str,
        text: str,
        seq: int,
        now_us: int,
    ) -> None:
        """Take one delta; it joins the session's open segment when it continues it."""
        if not self._admit(fence.session_id):
            return
        bucket = self._bucket(fence)
        last = bucket.items[-1] if bucket.items else None
        if (
            not isinstance(last, Segment)
            or last.closed
            or last.seq + 1 != seq
            or len(last.parts) >= MAX_PARTS
            or last.key != (turn_id, kind, tuple(head.items()))
        ):
            last = Segment(fence.session_id, turn_id, kind, head, first_seq=seq, created_us=now_us)
            bucket.items.append(last)
        last.add(field, text)
        self._added()

    def add(self, fence: Fence, event: EventRecord) -> None:
        """Take an event that is announced before it is stored (never one of the finals: those are committed)."""
        self._bucket(fence).items.append(event)
        self._added()

    async def room(self) -> bool:
        """With `block_with_timeout`, wait until there is room; False when the time ran out."""
        if self._settings.delta_overflow != "block_with_timeout" or self._room.is_set():
            return True
        try:
            async with asyncio.timeout(self._settings.block_timeout_s):
                await self._room.wait()
        except TimeoutError:
            return False
        return True

    async def take(self, session_id: SessionId) -> list[EventRecord]:
        """The barrier: the session's unwritten events, for the caller to commit; none is under way any more."""
        while session_id in self._flushing:
            await self._flushed.wait()
        bucket = self._buckets.pop(session_id, None)
        if bucket is None:
            return []
        self._removed(_size(bucket))
        return [_record(item) for item in bucket.items]

    def forget(self, session_id: SessionId) -> None:
        """The session is not ours any more: drop what is unwritten."""
        bucket = self._buckets.pop(session_id, None)
        if bucket is not None:
            self._removed(_size(bucket))

    async def flush(self) -> bool:
        """Write everything gathered so far in one transaction; False if the store refused (it is kept)."""
        taken, self._buckets = self._buckets, {}
        self._full.clear()
        if not taken:
            return True
        self._flushing = taken
        self._flushed.clear()
        try:
            await self._write(taken)
            return True
        except StorageError as error:
            self.counts.failures += 1
            if error.retryable:
                self._put_back(taken)
                return False
            await self._write_apart(taken)
            return True
        finally:
            self._flushing = {}
            self._flushed.set()

    async def _write_apart(self, taken: dict[SessionId, _Bucket]) -> None:
        """The database refused the batch for good: find out whose fault it is, so that the others are stored."""
        for session_id, bucket in taken.items():
            try:
                await self._write({session_id: bucket})
            except StorageError as error:
                if error.retryable:
                    self._put_back({session_id: bucket})
                    continue
                self.counts.dropped += _size(bucket)
                self._removed(_size(bucket))
                self._on_stale(session_id, bucket.fence.epoch)

    async def _write(self, taken: dict[SessionId, _Bucket]) -> None:
        batches = [EventBatch(bucket.fence, tuple(_record(item) for item in bucket.items)) for bucket in taken.values()]
        stale = set(await self._store.append_events(batches))
        self.counts.flushes += 1
        for batch in batches:
            session_id = batch.fence.session_id
            self._removed(_size(taken[session_id]))
            if session_id in stale:
                self.counts.stale += len(batch.events)
                self._on_stale(session_id, batch.fence.epoch)
            elif batch.events:
                self.counts.rows += len(batch.events)
                self._on_stored(session_id, batch.events[-1].seq)

    async def _run(self) -> None:
        while not (self._closing and not self._buckets):
            await self._wake.wait()
            self._wake.clear()
            delay_s = self._settings.flush_interval_ms / 1000 * min(2 ** min(self._refused, 8), 20)
            if not self._closing:
                await self._wait_full(delay_s)
            self._refused = 0 if await self.flush() else self._refused + 1
            if self._refused and self._closing:
                return
            if self._buckets:
                self._wake.set()

    async def _wait_full(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._full.wait()

    def _bucket(self, fence: Fence) -> _Bucket:
        bucket = self._buckets.get(fence.session_id)
        if bucket is None or bucket.fence.epoch != fence.epoch:
            self.forget(fence.session_id)
            bucket = self._buckets[fence.session_id] = _Bucket(fence, self._monotonic_s())
        return bucket

    def _added(self) -> None:
        self._pending += 1
        self.counts.events += 1
        self._wake.set()
        if self._pending >= self._settings.batch_size and not self._flushing and not self._refused:
            self._full.set()
        if self._pending >= self._settings.max_pending:
            self._room.clear()

    def _removed(self, count: int) -> None:
        self._pending -= count
        if self._pending < self._settings.max_pending:
            self._room.set()

    def _admit(self, session_id: SessionId) -> bool:
        if self._pending < self._settings.max_pending:
            return True
        if self._settings.delta_overflow == "drop_oldest" and self._drop_oldest(session_id):
            return True
        self.counts.dropped += 1
        return False

    def _drop_oldest(self, session_id: SessionId) -> bool:
        """Give up the oldest unwritten run of deltas, of this session if it has one."""
        own = self._buckets.get(session_id)
        for bucket in ([own] if own else []) + list(self._buckets.values()):
            for item in bucket.items:
                if isinstance(item, Segment):
                    bucket.items.remove(item)
                    self.counts.dropped += len(item.parts)
                    self._removed(len(item.parts))
                    return True
        return False

    def _put_back(self, taken: dict[SessionId, _Bucket]) -> None:
        for session_id, bucket in taken.items():
            for item in bucket.items:
                if isinstance(item, Segment):
                    item.closed = True
            newer = self._buckets.get(session_id)
            if newer is None:
                self._buckets[session_id] = bucket
            elif newer.fence.epoch == bucket.fence.epoch:
                newer.items.extendleft(reversed(bucket.items))
                newer.since_s = bucket.since_s
            else:
                self._removed(_size(bucket))


def _record(item: Segment | EventRecord) -> EventRecord:
    return item.to_record() if isinstance(item, Segment) else item


def _size(bucket: _Bucket) -> int:
    return sum(len(item.parts) if isinstance(item, Segment) else 1 for item in bucket.items)
