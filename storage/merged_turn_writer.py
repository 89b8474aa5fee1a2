"""Fenced writes of a turn as one statement each: one round trip to Postgres instead of seven.

Inside a statement each part runs only if the one before it found its row; the first locks the session's row, so
that a new owner's `open_session` comes wholly before (the fence fails) or wholly after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.database import Database
from storage.errors import Conflict
from storage.outbox_writer import outbox_json
from storage.records import EventBatch, EventRecord, Fence, MessageRecord, SessionId, TaskRecord, TurnId
from storage.rows import columns, event_rows, message_rows
from storage.turn_writer import Completion, completion_params, newest_us, stale, task_params

MESSAGE_COLUMNS = 7
EVENT_COLUMNS = 8


class MergedTurnWriter:
    """A `TurnWriter` with a statement per write."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def accept(
        self, fence: Fence, task: TaskRecord, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
    ) -> bool:
        turn_id, _, *rest = task_params(task)
        return await self._write("accept_turn", fence, (turn_id, *rest), messages, events)

    async def commit_round(
        self,
        fence: Fence,
        turn: tuple[TurnId, int, int],
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
    ) -> bool:
        params = (*turn, newest_us(messages))
        return await self._write("commit_round", fence, params, messages, events)

    async def finish(
        self, fence: Fence, end: Completion, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
    ) -> bool:
        params = (end.turn_id, end.attempt, *completion_params(end))
        return await self._write("finish_turn", fence, params, messages, events, outbox_json(end.outbox))

    async def append_events(self, batches: Sequence[EventBatch]) -> set[SessionId]:
        rows = [row for batch in batches for row in event_rows(batch.events)]
        ids = [batch.fence.session_id for batch in batches]
        epochs = [batch.fence.epoch for batch in batches]
        held = await self._db.fetch("append_events", ids, epochs, *columns(rows, EVENT_COLUMNS))
        return {row["session_id"] for row in held}

    async def _write(
        self,
        name: str,
        fence: Fence,
        params: tuple[Any, ...],
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
        *more: Any,
    ) -> bool:
        args = (fence.session_id, fence.epoch, *params)
        args += (
            *columns(message_rows(messages), MESSAGE_COLUMNS),
            *columns(event_rows(events), EVENT_COLUMNS),
            *more,
        )
        try:
            row = await self._db.fetchrow(name, *args)
        except Conflict:
            # An earlier, given-up send of this very write may have committed while this one waited for the
            # session's row with an older snapshot: a fresh snapshot sees its messages.
            row = await self._db.fetchrow(name, *args)
        if row is None or not row["fenced"]:
            raise stale(fence)
        return bool(row["done"])
