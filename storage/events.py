"""The event log of each session."""

from __future__ import annotations

from collections.abc import Sequence

from storage.records import EventBatch, EventRecord, SessionId
from storage.rows import event_record
from storage.topic import StoreTopic


class EventTopic(StoreTopic):
    """`EventStorage` in SQL."""

    async def append_events(self, batches: Sequence[EventBatch]) -> list[SessionId]:
        if not batches:
            return []
        held = await self._turns.append_events(batches)
        asked = dict.fromkeys(batch.fence.session_id for batch in batches)
        return [session_id for session_id in asked if session_id not in held]

    async def read_events(self, session_id: SessionId, *, after: int, limit: int, max_bytes: int) -> list[EventRecord]:
        rows = await self._db.fetch("read_events", session_id, after, limit, max(1, max_bytes))
        return [event_record(row) for row in rows]

    async def last_event_seq(self, session_id: SessionId) -> int:
        row = await self._db.fetchrow("last_event_seq", session_id)
        return row["seq"] if row is not None else 0

    async def delete_events(self, *, kinds: Sequence[str], before_us: int, limit: int) -> int:
        return await self._db.execute("delete_events", self._db.array(kinds), before_us, limit)
