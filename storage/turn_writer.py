"""Fenced writes of a turn, step by step in one transaction, and the Protocol of all such writers.

    lock the session's row and compare the epoch -> stale: StaleEpoch
        -> change the task's row -> not as expected: False
            -> add messages and events, count them

Both writers follow this order; see `merged_turn_writer` for the one that sends it as one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from storage.database import Database, Runner
from storage.errors import StaleEpoch
from storage.outbox_records import NewOutboxItem
from storage.outbox_writer import post_step
from storage.records import (
    EventBatch,
    EventRecord,
    Fence,
    MessageRecord,
    SessionId,
    TaskRecord,
    TerminalStatus,
    TurnId,
)
from storage.rows import event_rows, json_text, message_rows, plain_text


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended; `outbox` is what is to be sent because of it, recorded with it or not at all."""

    turn_id: TurnId
    attempt: int
    status: TerminalStatus
    answer: str | None
    error: bytes | None
    usage: bytes | None
    stop_reason: str | None
    now_us: int
    outbox: tuple[NewOutboxItem, ...] = ()


class TurnWriter(Protocol):
    """Each method is all or nothing, raises `StaleEpoch`, and says whether the task was as expected."""

    async def accept(
        self, fence: Fence, task: TaskRecord, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
    ) -> bool: ...

    async def commit_round(
        self,
        fence: Fence,
        turn: tuple[TurnId, int, int],
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
    ) -> bool:
        """`turn` is (turn_id, attempt, round)."""

    async def finish(
        self, fence: Fence, end: Completion, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
    ) -> bool: ...

    async def append_events(self, batches: Sequence[EventBatch]) -> set[SessionId]:
        """The sessions whose fence held."""


class SteppedTurnWriter:
    """A `TurnWriter` with a statement per step: what SQLite does best."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def accept(
        self, fence: Fence, task: TaskRecord, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
    ) -> bool:
        async def body(tx: Runner) -> bool:
            await check_fence(tx, fence)
            if not await tx.execute("insert_task", *task_params(task)):
                return False
            await write_rows(tx, fence.session_id, task.created_us, messages, events)
            return True

        return await self._db.transact(body)

    async def commit_round(
        self,
        fence: Fence,
        turn: tuple[TurnId, int, int],
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
    ) -> bool:
        turn_id, attempt, round_ = turn

        async def body(tx: Runner) -> bool:
            await check_fence(tx, fence)
            if not await tx.execute("advance_task", turn_id, fence.session_id, attempt, round_):
                return False
            await write_rows(tx, fence.session_id, newest_us(messages), messages, events)
            return True

        return await self._db.transact(body)

    async def finish(
        self, fence: Fence, end: Completion, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
    ) -> bool:
        async def body(tx: Runner) -> bool:
            await check_fence(tx, fence)
            target = (end.turn_id, fence.session_id, end.attempt)
            if not await tx.execute("finish_task", *target, *completion_params(end)):
                return False
            await write_rows(tx, fence.session_id, end.now_us, messages, events)
            await post_step(tx, end.outbox)
            return True

        return await self._db.transact(body)

    async def append_events(self, batches: Sequence[EventBatch]) -> set[SessionId]:
        fences = self._db.array([(batch.fence.session_id, batch.fence.epoch) for batch in batches])

        async def body(tx: Runner) -> set[SessionId]:
            held = {row["session_id"] for row in await tx.fetch("fence_sessions", fences)}
            events = [e for batch in batches if batch.fence.session_id in held for e in batch.events]
            await tx.execute_rows("insert_events", event_rows(events))
            return held

        return await self._db.transact(body)


async def check_fence(tx: Runner, fence: Fence) -> None:
    """Lock the session's row for this transaction; `StaleEpoch` unless the fence owns it."""
    if await tx.fetchrow("fence_session", fence.session_id, fence.epoch) is None:
        raise stale(fence)


def stale(fence: Fence) -> StaleEpoch:
    """The error for a fence that no longer holds."""
    return StaleEpoch(f"epoch {fence.epoch} no longer owns session {fence.session_id}")


async def write_rows(
    tx: Runner,
    session_id: SessionId,
    now_us: int,
    messages: Sequence[MessageRecord],
    events: Sequence[EventRecord],
) -> None:
    """Add messages and events, and count the messages that are new."""
    added = await tx.execute_rows("insert_messages", message_rows(messages))
    await tx.execute_rows("insert_events", event_rows(events))
    await tx.execute("touch_session", session_id, now_us, added)


def newest_us(messages: Sequence[MessageRecord]) -> int:
    """When the last of the messages was made; 0 if there is none."""
    return max((m.created_us for m in messages), default=0)


def task_params(task: TaskRecord) -> tuple[Any, ...]:
    """Parameters of insert_task: a running task starts with attempt 1."""
    runs = task.status == "running"
    return (
        task.turn_id,
        task.session_id,
        task.user_id,
        task.status,
        1 if runs else 0,
        task.request.decode(),
        plain_text(task.idempotency_key),
        task.created_us,
        (task.started_us or task.created_us) if runs else None,
    )


def completion_params(end: Completion) -> tuple[Any, ...]:
    """Parameters of finish_task after the task's own."""
    texts = (plain_text(end.answer), json_text(end.error), json_text(end.usage), plain_text(end.stop_reason))
    return (end.status, *texts, end.now_us)
