"""How background tasks are enqueued, claimed and completed: the Protocol, and the writer that takes a step at a time.

    enqueued ──► ready, when nobody owns its session and it is first in its line ──► claimed: the pool owns the session
                      ▲                                                                  │
                      └──────── the next in the session's line ◄──── finished and left ◄─┘

A session with an owner has no ready task (opening it sees to that), so what a claim finds can be taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from storage.database import Database, Row, Runner
from storage.outbox_writer import post_step
from storage.records import (
    ClaimedTask,
    EventRecord,
    Fence,
    MessageRecord,
    NewTask,
    OpenedSession,
    OwnerId,
    SessionId,
    SessionRecord,
    TurnId,
)
from storage.rows import plain_text, session_record, task_record
from storage.turn_writer import Completion, completion_params, write_rows


class FinishedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a turn after which its session is given up; `last_seq` is its last event number."""

    fence: Fence
    end: Completion
    last_seq: int
    messages: tuple[MessageRecord, ...] = ()
    events: tuple[EventRecord, ...] = ()


class Finish(msgspec.Struct, frozen=True):
    """What became of it: the fence held; the task was as expected; another task of the session is ready now."""

    fenced: bool
    done: bool
    following: bool = False


class QueueWriter(Protocol):
    """Each method is all or nothing for each task."""

    async def enqueue_new(self, items: Sequence[NewTask], now_us: int) -> set[TurnId]:
        """Record tasks with new sessions; those that were new."""

    async def claim(
        self, owner_id: OwnerId, *, limit: int, suspects: int, seq_block: int, now_us: int
    ) -> list[ClaimedTask]: ...
    async def promote_due(self, *, limit: int, now_us: int) -> list[tuple[SessionId, OwnerId | None]]: ...
    async def finish_and_leave(self, turns: Sequence[FinishedTurn]) -> list[Finish]: ...


class SteppedQueueWriter:
    """A `QueueWriter` with a statement per step: what SQLite does best."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def enqueue_new(self, items: Sequence[NewTask], now_us: int) -> set[TurnId]:
        async def body(tx: Runner) -> set[TurnId]:
            added: set[TurnId] = set()
            for item in items:
                assert item.session is not None  # noqa: S101 - the caller's contract
                if not await tx.execute("create_session", *new_session_params(item.session)):
                    continue
                if await enqueue_step(tx, item, ready=item.task.run_at_us is None, now_us=now_us):
                    added.add(item.task.turn_id)
            return added

        return await self._db.transact(body)

    async def claim(
        self, owner_id: OwnerId, *, limit: int, suspects: int, seq_block: int, now_us: int
    ) -> list[ClaimedTask]:
        async def body(tx: Runner) -> list[ClaimedTask]:
            live = await tx.fetchrow("owner_is_live", owner_id)
            if live is None or not live["live"]:
                return []
            claimed = []
            first = await tx.fetch("claimable_suspects", min(suspects, limit))
            for found in [*first, *await tx.fetch("claimable_tasks", limit - len(first))]:
                session = await tx.fetchrow("claim_session", found["session_id"], owner_id, seq_block, now_us)
                if found["status"] == "running":
                    await tx.execute("record_crash", found["turn_id"], now_us)
                task = await tx.fetchrow("claim_task", found["turn_id"], now_us)
                if session is not None and task is not None:
                    record, last_seq = session_record(session), session["last_seq"]
                    claimed.append(claimed_task(task, record, last_seq, seq_block, found["status"]))
            return claimed

        return await self._db.transact(body)

    async def promote_due(self, *, limit: int, now_us: int) -> list[tuple[SessionId, OwnerId | None]]:
        async def body(tx: Runner) -> list[tuple[SessionId, OwnerId | None]]:
            found = await tx.fetch("due_tasks", now_us, limit)
            for row in found:
                await tx.execute("come_due", row["turn_id"], now_us)
            for row in found:
                if row["owner_id"] is None:
                    await tx.execute("release_next", row["session_id"], now_us)
            return [(row["session_id"], row["owner_id"]) for row in found]

        return await self._db.transact(body)

    async def finish_and_leave(self, turns: Sequence[FinishedTurn]) -> list[Finish]:
        async def body(tx: Runner) -> list[Finish]:
            return [await self._finish(tx, turn) for turn in turns]

        return await self._db.transact(body)

    async def _finish(self, tx: Runner, turn: FinishedTurn) -> Finish:
        fence, end = turn.fence, turn.end
        if await tx.fetchrow("fence_session", fence.session_id, fence.epoch) is None:
            return Finish(fenced=False, done=False)
        target = (end.turn_id, fence.session_id, end.attempt)
        if not await tx.execute("finish_task", *target, *completion_params(end)):
            return Finish(fenced=True, done=False)
        await write_rows(tx, fence.session_id, end.now_us, turn.messages, turn.events)
        await post_step(tx, end.outbox)
        await tx.execute("close_session", fence.session_id, fence.epoch, turn.last_seq)
        following = await tx.execute("release_next", fence.session_id, end.now_us)
        return Finish(fenced=True, done=True, following=following > 0)


async def enqueue_step(tx: Runner, item: NewTask, *, ready: bool, now_us: int) -> bool:
    """Record one task and its `queued` event; False if it is known. The session's row is locked, or new."""
    task = item.task
    rank = await tx.fetchrow("next_rank", task.user_id, task.priority)
    added = await tx.execute("enqueue_task", *enqueue_params(item, rank["rank"] if rank else 1, ready=ready))
    if not added:
        return False
    number = await tx.fetchrow("take_number", task.session_id, now_us)
    seq = number["reserved_seq"] if number else 1
    event = (task.session_id, seq, seq, task.turn_id, "queued", item.event.decode(), None, now_us)
    await tx.execute_rows("insert_events", [event])
    return True


def new_session_params(session: SessionRecord) -> tuple[Any, ...]:
    """Parameters of create_session."""
    return (
        session.session_id,
        session.user_id,
        plain_text(session.title),
        plain_text(session.agent_id),
        session.archived,
        session.created_us,
        session.updated_us,
    )


def enqueue_params(item: NewTask, rank: int, *, ready: bool) -> tuple[Any, ...]:
    """Parameters of enqueue_task."""
    task = item.task
    return (
        task.turn_id,
        task.session_id,
        task.user_id,
        task.request.decode(),
        plain_text(task.idempotency_key),
        task.created_us,
        task.priority,
        rank,
        ready,
        task.run_at_us,
        task.max_attempts,
        plain_text(task.parent_id),
        task.depth,
    )


def claimed_task(task: Row, session: SessionRecord, last_seq: int, seq_block: int, was: str) -> ClaimedTask:
    """A claimed row with its session."""
    record = task_record(task)
    opened = OpenedSession(
        session=session,
        first_seq=session.reserved_seq - seq_block + 1,
        last_seq=last_seq,
        running=record if was == "running" else None,
        queued=(),
    )
    return ClaimedTask(task=record, opened=opened)
