"""Outgoing lines: one per gateway, with one call in flight.

    session A ─┐                 ┌ in flight: Batch(events 1..40) ──► Gateway.call
    session B ─┼─► OutgoingLine ─┤
    session C ─┘                 └ gathering: events 41..         the next batch

What gathers while a call is under way is the next batch: latency is one call when idle, and batches grow by
themselves under load. A least interval between calls saves CPU at middle load; the first event after quiet goes at
once. (Ray may reorder pipelined calls to one actor, so there is never a second one.) A line that gathers more than
`max_bytes` drops what it holds and names the sessions it cut: their readers catch up from the owner's buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable

from actors.errors import WunderError
from actors.handles import Reach, tell
from actors.logs import log
from actors.messages import Batch
from actors.replies import Event
from storage.records import OwnerId, SessionId

KEEPALIVE_S = 3.0
"""A silent line sends an empty batch this often: a gateway that hears nothing for longer looks for a new owner."""

_OVERHEAD_BYTES = 120


class OutgoingLine:
    """The events of one session actor on their way to one gateway."""

    def __init__(
        self,
        actor: str,
        owner_id: Callable[[], OwnerId],
        send: Callable[[Batch], Awaitable[None]],
        *,
        number: int = 0,
        interval_s: float,
        max_bytes: int,
        on_lost: Callable[[], None],
    ) -> None:
        self._actor = actor
        self._number = number
        self._owner_id = owner_id
        self._send = send
        self._interval_s = interval_s
        self._max_bytes = max_bytes
        self._on_lost = on_lost
        self._events: list[Event] = []
        self._bytes = 0
        self._dropped: set[SessionId] = set()
        self._resync: set[SessionId] = set()
        self._wake = asyncio.Event()
        self._calling = asyncio.Lock()
        self.sessions: set[SessionId] = set()
        self.calls = 0
        self.sent = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        return len(self._events)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"line-{self._actor}")

    async def stop(self) -> None:
        """End at once; what was not sent is in the buffers and the store."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._bytes += len(event.body) + _OVERHEAD_BYTES
        if self._bytes > self._max_bytes:
            self._resync.update(e.session_id for e in self._events)
            self._events, self._bytes = [], 0
        self._wake.set()

    def drop(self, session_id: SessionId) -> None:
        """Tell the gateway that this session is not here any more (after the events before)."""
        self.sessions.discard(session_id)
        self._dropped.add(session_id)
        self._wake.set()

    async def flush(self) -> None:
        """Send what is left, once, without waiting for the interval (used when an actor stops)."""
        if self._events or self._dropped or self._resync:
            with contextlib.suppress(WunderError):
                async with self._calling:
                    await self._send(self._take())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEPALIVE_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                async with self._calling:
                    await self._send(self._take())
            except Exception as error:
                # The gateway is gone for good (its calls fail fast); its successor follows anew.
                if not isinstance(error, WunderError):
                    log.exception("line_failed", error)
                self._on_lost()
                return
            self.calls += 1
            if self._interval_s:
                await asyncio.sleep(self._interval_s)

    def _take(self) -> Batch:
        batch = Batch(
            actor=self._actor,
            owner_id=self._owner_id(),
            line=self._number,
            events=tuple(self._events),
            dropped=tuple(self._dropped),
            resync=tuple(self._resync),
        )
        self.sent += len(self._events)
        self._events, self._bytes = [], 0
        self._dropped.clear()
        self._resync.clear()
        return batch


class LineSet:
    """The lines of one session actor, by gateway; a line whose gateway is gone is forgotten."""

    def __init__(
        self,
        actor: str,
        reach: Reach,
        owner_id: Callable[[], OwnerId],
        *,
        interval_s: float,
        max_bytes: int,
        on_lost: Callable[[str, set[SessionId]], None],
    ) -> None:
        self._actor = actor
        self._reach = reach
        self._owner_id = owner_id
        self._interval_s = interval_s
        self._max_bytes = max_bytes
        self._on_lost = on_lost
        self._lines: dict[str, OutgoingLine] = {}
        self._calls_before = 0
        self._numbers = itertools.count(1)

    @property
    def depth(self) -> int:
        """Events that wait on all lines."""
        return sum(line.depth for line in self._lines.values())

    @property
    def calls(self) -> int:
        """Batches sent since the start."""
        return self._calls_before + sum(line.calls for line in self._lines.values())

    def to(self, gateway: str) -> OutgoingLine:
        """The line to a gateway, started with its first use."""
        line = self._lines.get(gateway)
        if line is None:
            call = self._reach.actor(gateway)

            async def send(batch: Batch) -> None:
                await tell(call, batch)

            line = OutgoingLine(
                self._actor,
                self._owner_id,
                send,
                number=next(self._numbers),
                interval_s=self._interval_s,
                max_bytes=self._max_bytes,
                on_lost=lambda: self._lost(gateway),
            )
            self._lines[gateway] = line
            line.start()
        return line

    async def stop(self, *, flush: bool) -> None:
        for line in list(self._lines.values()):
            if flush:
                await line.flush()
            await line.stop()

    def _lost(self, gateway: str) -> None:
        line = self._lines.pop(gateway, None)
        if line is not None:
            self._calls_before += line.calls
            self._on_lost(gateway, set(line.sessions))
