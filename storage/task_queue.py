"""The task queue: background tasks in, claims out, and what happens to a task besides success."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from storage.database import Runner
from storage.errors import Conflict
from storage.notifications import READY_TASKS
from storage.queue_writer import FinishedTurn, enqueue_step, new_session_params
from storage.records import (
    AttemptRecord,
    ClaimedTask,
    Enqueued,
    EventRecord,
    Fence,
    MessageRecord,
    NewTask,
    OwnerId,
    QueueDepth,
    SessionId,
    TaskRecord,
    TurnId,
    UserId,
)
from storage.rows import attempt_record, json_text, maybe_task, plain_text, task_record
from storage.tasks import TaskTopic
from storage.turn_writer import check_fence, write_rows

_NEWEST = (2**62, "\uffff")


class TaskQueueTopic(TaskTopic):
    """`TaskQueueStorage` in SQL."""

    async def enqueue_tasks(self, items: Sequence[NewTask], *, now_us: int) -> list[Enqueued]:
        new = [item for item in items if item.session is not None]
        added = await self._queue.enqueue_new(new, now_us) if new else set()
        enqueued = list(await asyncio.gather(*(self._enqueued(item, added, now_us) for item in items)))
        if any(one.task is not None and one.owner_id is None and not one.duplicate for one in enqueued):
            self._db.notify(READY_TASKS)
        return enqueued

    async def _enqueued(self, item: NewTask, added: set[TurnId], now_us: int) -> Enqueued:
        if item.task.turn_id in added:
            return Enqueued(task=item.task)
        if (earlier := await self._earlier(item.task)) is not None:
            return earlier
        return await self._enqueue_into(item, now_us)

    async def _earlier(self, task: TaskRecord) -> Enqueued | None:
        """What an earlier try, or an earlier request with the same key, has recorded."""
        if (same := await self.get_task(task.turn_id)) is not None:
            return Enqueued(task=same)
        if task.idempotency_key is not None:
            duplicate = await self.find_idempotent(task.user_id, task.idempotency_key)
            if duplicate is not None:
                return Enqueued(task=duplicate, duplicate=True)
        return None

    async def _enqueue_into(self, item: NewTask, now_us: int) -> Enqueued:
        task = item.task
        recorded = await self._db.transact(lambda tx: enqueue_into(tx, item, now_us))
        if recorded is None and (recorded := await self._earlier(task)) is None:
            raise Conflict("the task was refused", field="task_id")
        return recorded

    async def queue_depth(self, user_ids: Sequence[UserId], *, most: int) -> QueueDepth:
        total = await self._db.fetchrow("queued_in_all", most)
        by_user: dict[UserId, int] = {}
        for user_id in user_ids:
            row = await self._db.fetchrow("queued_by_user", user_id, most)
            by_user[user_id] = row["queued"] if row is not None else 0
        return QueueDepth(total=total["queued"] if total is not None else 0, by_user=by_user)

    async def queue_position(self, turn_id: TurnId, *, most: int) -> int | None:
        row = await self._db.fetchrow("queue_position", turn_id, most)
        return None if row is None or row["position"] > most else row["position"]

    async def claim_tasks(
        self, owner_id: OwnerId, *, limit: int, seq_block: int, now_us: int, suspects: int = 1
    ) -> list[ClaimedTask]:
        return await self._queue.claim(owner_id, limit=limit, suspects=suspects, seq_block=seq_block, now_us=now_us)

    async def release_orphan(self, session_id: SessionId, *, now_us: int) -> bool:
        async def body(tx: Runner) -> bool:
            session = await tx.fetchrow("lock_session", session_id)
            if session is None:
                return False
            live = await tx.fetchrow("owner_is_live", session["owner_id"])
            if live is not None and live["live"]:
                return False
            died = session["owner_id"] is not None
            return await tx.execute("release_orphan", session_id, now_us, died) > 0

        released = await self._db.transact(body)
        if released:
            self._db.notify(READY_TASKS)
        return released

    async def sessions_of_owner(self, owner_id: OwnerId) -> list[Fence]:
        return [Fence(row["session_id"], row["epoch"]) for row in await self._db.fetch("sessions_of_owner", owner_id)]

    async def finish_and_leave(self, turns: Sequence[FinishedTurn]) -> list[bool]:
        found = await self._queue.finish_and_leave(turns)
        if any(finish.following for finish in found):
            self._db.notify(READY_TASKS)
        return [finish.done or await self._is_finished(turn) for turn, finish in zip(turns, found, strict=True)]

    async def _is_finished(self, turn: FinishedTurn) -> bool:
        """An earlier try, whose answer was lost, has recorded this very end (and has given the session up)."""
        task = await self.get_task(turn.end.turn_id)
        return task is not None and (task.status, task.attempt) == (turn.end.status, turn.end.attempt)

    async def retry_turn(
        self,
        fence: Fence,
        task: TaskRecord,
        *,
        run_at_us: int,
        error: bytes,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
        now_us: int,
    ) -> bool:
        async def body(tx: Runner) -> bool:
            await check_fence(tx, fence)
            target = (task.turn_id, fence.session_id, task.attempt)
            if not await tx.execute("retry_task", *target, run_at_us, error.decode()):
                return False
            ended = (task.turn_id, task.attempt, "failed", json_text(error), task.attempt_started_us, now_us)
            await tx.execute("record_attempt", *ended)
            await write_rows(tx, fence.session_id, now_us, messages, events)
            return True

        return await self._db.transact(body)

    async def record_attempt(self, attempt: AttemptRecord) -> None:
        await self._db.execute(
            "record_attempt",
            attempt.turn_id,
            attempt.attempt,
            attempt.outcome,
            json_text(attempt.error),
            attempt.started_us,
            attempt.finished_us,
        )

    async def list_attempts(self, turn_id: TurnId) -> list[AttemptRecord]:
        return [attempt_record(row) for row in await self._db.fetch("list_attempts", turn_id)]

    async def promote_due(self, *, limit: int, now_us: int) -> list[tuple[SessionId, OwnerId | None]]:
        promoted = await self._queue.promote_due(limit=limit, now_us=now_us)
        if any(owner_id is None for _, owner_id in promoted):
            self._db.notify(READY_TASKS)
        return promoted

    async def next_due(self) -> int | None:
        row = await self._db.fetchrow("next_due")
        return None if row is None else row["run_at_us"]

    async def queued_tasks(self, session_id: SessionId, *, limit: int) -> list[TaskRecord]:
        rows = await self._db.fetch("active_tasks", session_id, limit)
        return [task for task in map(task_record, rows) if task.status == "queued"]

    async def list_tasks(
        self,
        user_id: UserId | None,
        *,
        status: str | None,
        session_id: SessionId | None,
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[TaskRecord]:
        args = (status, plain_text(session_id), *(before or _NEWEST), limit)
        if user_id is None:
            rows = await self._db.fetch("list_tasks", *args)
        else:
            rows = await self._db.fetch("list_user_tasks", *args, user_id)
        return [task_record(row) for row in rows]

    async def requeue_task(self, turn_id: TurnId, *, now_us: int) -> Enqueued:
        known = await self.get_task(turn_id)
        if known is None:
            return Enqueued(task=None)

        async def body(tx: Runner) -> Enqueued:
            session = await tx.fetchrow("lock_session", known.session_id)
            if session is None:
                return Enqueued(task=None)
            await tx.execute("record_end", turn_id)
            task = maybe_task(await tx.fetchrow("requeue_task", turn_id))
            live = await tx.fetchrow("owner_is_live", session["owner_id"])
            if live is not None and live["live"]:
                return Enqueued(task=task, owner_id=session["owner_id"])
            await tx.execute("release_next", known.session_id, now_us)
            return Enqueued(task=task)

        requeued = await self._db.transact(body)
        if requeued.task is not None and requeued.owner_id is None:
            self._db.notify(READY_TASKS)
        return requeued

    async def queue_states(self) -> dict[str, tuple[int, int]]:
        rows = await self._db.fetch("queue_states")
        return {row["status"]: (row["tasks"], row["oldest_us"]) for row in rows}


async def enqueue_into(tx: Runner, item: NewTask, now_us: int) -> Enqueued | None:
    """Into a session that exists, or is made: its row is locked, so its owner and its line do not change meanwhile.

    No task if the session is not the user's; None if the task's id or its key is known.
    """
    task = item.task
    if item.session is not None:
        await tx.execute("create_session", *new_session_params(item.session))
    session = await tx.fetchrow("lock_session", task.session_id)
    row = await tx.fetchrow("get_session", task.session_id) if session is not None else None
    if row is None or row["user_id"] != task.user_id:
        return Enqueued(task=None)
    live = await tx.fetchrow("owner_is_live", row["owner_id"])
    owner_id: OwnerId | None = row["owner_id"] if live is not None and live["live"] else None
    line = await tx.fetchrow("has_line", task.session_id, now_us)
    ready = owner_id is None and task.run_at_us is None and not (line is not None and line["found"])
    if not await enqueue_step(tx, item, ready=ready, now_us=now_us):
        return None
    return Enqueued(task=task, owner_id=owner_id if task.run_at_us is None else None)
