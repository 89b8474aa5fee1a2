"""What a session says: events get their number, go to the buffer and the lines at once, and to the store behind.

    announce(delta) ──► number ─► buffer + lines ─► writer (batched)
    commit(finals)  ──► hold what comes meanwhile ─► one transaction (unwritten deltas + finals) ─► number order kept:
                        announce the finals, then what was held

So a final is announced only once it is durable, and nothing of a turn is ever announced or stored out of order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from actors.clock import Clock
from actors.errors import StaleEpoch, StorageUnavailable
from actors.event_buffer import EventBuffer
from actors.events import encode_json, envelope, from_record
from actors.lines import OutgoingLine
from actors.replies import Event
from actors.session import Numbers
from storage.records import EventBatch, EventRecord, Fence, TurnId
from storage.store import AsyncStorageBackend
from storage.stream_event_writer import StreamEventWriter

RETRY_FOR_S = 8.0
"""How long a commit is tried again while the database is away: less than an owner's life without a lease."""

_FIRST_RETRY_S = 0.05
_RESERVE = 64


class Draft(msgspec.Struct, frozen=True):
    """An event before it has a number."""

    kind: str
    turn_id: TurnId
    data: dict[str, Any]


class _HeldDelta(msgspec.Struct, frozen=True):
    turn_id: TurnId
    kind: str
    head: dict[str, Any]
    field: str
    text: str


class SessionStream:
    """The event side of one open session: numbers, buffer, followers, durable commits."""

    def __init__(
        self,
        fence: Fence,
        numbers: Numbers,
        buffer: EventBuffer,
        writer: StreamEventWriter,
        store: AsyncStorageBackend,
        clock: Clock,
    ) -> None:
        self.fence = fence
        self.numbers = numbers
        self.buffer = buffer
        self.lines: dict[str, OutgoingLine] = {}
        self._writer = writer
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._holding = False
        self._held: list[Draft | _HeldDelta] = []
        self._reserving: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def latest(self) -> int:
        return self.buffer.latest

    def delta(self, turn_id: TurnId, kind: str, head: dict[str, Any], field: str, text: str) -> None:
        """Announce a piece of text at once."""
        if self._holding:
            self._held.append(_HeldDelta(turn_id, kind, head, field, text))
            return
        if self.closed:
            return
        seq, now_us = self.numbers.take(), self._clock.now_us()
        body = envelope(self.fence.session_id, turn_id, now_us, encode_json({field: text, **head}))
        self._publish(Event(self.fence.session_id, self.fence.epoch, seq, seq, turn_id, kind, body))
        self._writer.add_delta(self.fence, turn_id, kind, head, field, text, seq, now_us)

    def announce(self, draft: Draft) -> None:
        """Announce a volatile event at once and store it behind."""
        if self._holding:
            self._held.append(draft)
        elif not self.closed:
            record = self._number(draft)
            self._publish(from_record(record, self.fence.epoch))
            self._writer.add(self.fence, record)

    async def room(self) -> None:
        """Wait until an event may be announced: numbers are reserved and the writer has room."""
        self._reserve_ahead()
        if self._left < _RESERVE and self._reserving is not None:
            await asyncio.shield(self._reserving)
        await self._writer.room()

    def say(self, turn_id: TurnId, kind: str, head: dict[str, Any], field: str, text: str) -> None:
        """Announce a piece of a tool's output if there is a number for it: a tool is never made to wait."""
        self._reserve_ahead()
        if self._left > _RESERVE:
            self.delta(turn_id, kind, head, field, text)

    async def commit(
        self,
        drafts: Sequence[Draft],
        write: Callable[[Sequence[EventRecord]], Awaitable[bool]],
    ) -> bool:
        """Make drafts durable in one transaction with everything announced before, then announce them.

        `write` gets the events in order and may be called again after `StorageUnavailable`; False means that
        nothing was written (and nothing is announced). Errors end the stream: its owner must give the session up.
        """
        async with self._lock:
            if self.closed:
                raise StorageUnavailable("the session was given up here")
            if self.numbers.left < len(drafts) + _RESERVE:
                await self._reserve()
            self._holding = True
            try:
                before = await self._writer.take(self.fence.session_id)
                first = self.numbers.next
                records = [self._number(draft) for draft in drafts]
                written = await self._persist(write, [*before, *records])
                if not written:
                    # What was announced before is stored all the same, ahead of what comes next.
                    self.numbers.next = first
                    await self._persist(self.append, before)
            except BaseException:
                self.closed = True
                raise
            finally:
                self._holding = False
            self._announce_stored(records if written else ())
            self._release_held()
            return written

    async def settle(self) -> None:
        """Store what is unwritten (before the session is given up cleanly)."""
        await self.commit([], self.append)

    async def append(self, events: Sequence[EventRecord]) -> bool:
        """A `write` for `commit` that stores the events and nothing else."""
        if events and await self._store.append_events([EventBatch(self.fence, tuple(events))]):
            raise StaleEpoch("the session has a newer owner")
        return True

    def close(self) -> None:
        """Say nothing any more; followers are told that the session left."""
        self.closed = True
        self._writer.forget(self.fence.session_id)
        for line in self.lines.values():
            line.drop(self.fence.session_id)
        self.lines.clear()
        if self._reserving is not None:
            self._reserving.cancel()

    async def _persist(
        self, write: Callable[[Sequence[EventRecord]], Awaitable[bool]], events: Sequence[EventRecord]
    ) -> bool:
        deadline = self._clock.monotonic_s() + RETRY_FOR_S
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                return await write(events)
            except StorageUnavailable:
                if self._clock.monotonic_s() + delay_s > deadline:
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 1.0)

    @property
    def _left(self) -> int:
        """Reserved numbers that neither an event has nor one that is held will need."""
        return self.numbers.left - len(self._held)

    def _reserve_ahead(self) -> None:
        if self._left * 2 < self.numbers.block and self._reserving is None and not self.closed:
            self._reserving = asyncio.create_task(self._reserve(), name="reserve-seq")
            self._reserving.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _reserve(self) -> None:
        target = self.numbers.reserved + self.numbers.block

        async def reserve(_: Sequence[EventRecord]) -> bool:
            await self._store.reserve_seq(self.fence, target)
            return True

        try:
            await self._persist(reserve, ())
            self.numbers.reserved = max(self.numbers.reserved, target)
        finally:
            self._reserving = None

    def _number(self, draft: Draft) -> EventRecord:
        seq = self.numbers.take()
        return EventRecord(
            session_id=self.fence.session_id,
            first_seq=seq,
            seq=seq,
            turn_id=draft.turn_id,
            kind=draft.kind,
            data=encode_json(draft.data),
            created_us=self._clock.now_us(),
        )

    def _announce_stored(self, records: Sequence[EventRecord]) -> None:
        for record in records:
            self._publish(from_record(record, self.fence.epoch))
        self.buffer.mark_stored(self.numbers.last)

    def _release_held(self) -> None:
        held, self._held = self._held, []
        for item in held:
            if isinstance(item, Draft):
                self.announce(item)
            else:
                self.delta(item.turn_id, item.kind, item.head, item.field, item.text)

    def _publish(self, event: Event) -> None:
        self.buffer.append(event)
        for line in self.lines.values():
            line.put(event)
