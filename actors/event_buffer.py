"""A session's recent events in the owner's memory: what live readers catch up from.

    evicted (stored)  |  base ........ latest
                      ^ readers before this read the store

Only stored events are evicted, so the store and the buffer together always have everything, whatever the database
does; how much may be unstored is bounded by the stream event writer.
"""

from __future__ import annotations

from collections import deque

from actors.replies import Event


class EventBuffer:
    """A ring of events bounded in number and bytes."""

    def __init__(self, *, base: int, max_events: int, max_bytes: int) -> None:
        self._events: deque[Event] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self.base = base
        self.latest = base
        self.stored = base

    def __len__(self) -> int:
        return len(self._events)

    def append(self, event: Event) -> None:
        self._events.append(event)
        self._bytes += len(event.body)
        self.latest = event.seq
        self._evict()

    def mark_stored(self, seq: int) -> None:
        """Everything up to `seq` is in the store (or was dropped by policy)."""
        if seq > self.stored:
            self.stored = seq
            self._evict()

    def after(self, cursor: int, max_bytes: int) -> tuple[Event, ...] | None:
        """Events after a cursor (at least one, if any), or None when the cursor is before the buffer."""
        if cursor < self.base:
            return None
        found: list[Event] = []
        size = 0
        # Cursors are nearly always near the end: walk back to the first one wanted.
        for event in reversed(self._events):
            if event.seq <= cursor:
                break
            found.append(event)
        found.reverse()
        for index, event in enumerate(found):
            size += len(event.body)
            if size > max_bytes and index:
                return tuple(found[:index])
        return tuple(found)

    def _evict(self) -> None:
        while self._events and (len(self._events) > self._max_events or self._bytes > self._max_bytes):
            if self._events[0].seq > self.stored:
                return
            event = self._events.popleft()
            self._bytes -= len(event.body)
            self.base = event.seq
