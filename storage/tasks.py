"""Turns (agent tasks): queued -> running -> one of four ends, each step fenced by epoch and attempt."""

from __future__ import annotations

from collections.abc import Sequence

from storage.database import Runner
from storage.errors import Conflict
from storage.outbox_records import NewOutboxItem
from storage.records import (
    Accepted,
    EventRecord,
    Fence,
    MessageRecord,
    OwnerId,
    SessionId,
    TaskRecord,
    TerminalStatus,
    TurnId,
    UserId,
)
from storage.rows import maybe_task, plain_text
from storage.topic import StoreTopic
from storage.turn_writer import Completion, check_fence, write_rows


class TaskTopic(StoreTopic):
    """`TaskStorage` in SQL."""

    async def accept_turn(
        self,
        fence: Fence,
        task: TaskRecord,
        *,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
    ) -> Accepted:
        if await self._turns.accept(fence, task, messages, events):
            return Accepted()
        if await self.get_task(task.turn_id) is not None:
            return Accepted()
        if task.idempotency_key is not None:
            duplicate = await self.find_idempotent(task.user_id, task.idempotency_key)
            if duplicate is not None:
                return Accepted(duplicate=duplicate)
        raise Conflict("another turn of the session is running", field="session_id")

    async def start_turn(
        self,
        fence: Fence,
        turn_id: TurnId,
        *,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
        now_us: int,
    ) -> TaskRecord | None:
        async def start(tx: Runner) -> TaskRecord | None:
            await check_fence(tx, fence)
            row = await tx.fetchrow("start_turn", turn_id, fence.session_id, now_us)
            if row is not None:
                await write_rows(tx, fence.session_id, now_us, messages, events)
            return maybe_task(row)

        return await self._db.transact(start)

    async def resume_turn(self, fence: Fence, turn_id: TurnId, *, now_us: int) -> TaskRecord | None:
        async def resume(tx: Runner) -> TaskRecord | None:
            await check_fence(tx, fence)
            await tx.execute("record_crash", turn_id, now_us)
            return maybe_task(await tx.fetchrow("resume_turn", turn_id, fence.session_id, now_us))

        return await self._db.transact(resume)

    async def commit_round(
        self,
        fence: Fence,
        turn_id: TurnId,
        attempt: int,
        *,
        round: int,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
    ) -> bool:
        return await self._turns.commit_round(fence, (turn_id, attempt, round), messages, events)

    async def finish_turn(
        self,
        fence: Fence,
        turn_id: TurnId,
        attempt: int,
        *,
        status: TerminalStatus,
        answer: str | None,
        error: bytes | None,
        usage: bytes | None,
        stop_reason: str | None,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
        now_us: int,
        outbox: Sequence[NewOutboxItem] = (),
    ) -> bool:
        end = Completion(
            turn_id=turn_id,
            attempt=attempt,
            status=status,
            answer=answer,
            error=error,
            usage=usage,
            stop_reason=stop_reason,
            now_us=now_us,
            outbox=tuple(outbox),
        )
        if await self._turns.finish(fence, end, messages, events):
            return True
        stored = await self.get_task(turn_id)
        return (
            stored is not None
            and stored.session_id == fence.session_id
            and (stored.status, stored.attempt) == (status, attempt)
        )

    async def request_cancel(self, turn_id: TurnId) -> TaskRecord | None:
        row = await self._db.fetchrow("request_cancel", turn_id)
        return await self.get_task(turn_id) if row is None else maybe_task(row)

    async def get_task(self, turn_id: TurnId) -> TaskRecord | None:
        return maybe_task(await self._db.fetchrow("get_task", turn_id))

    async def find_idempotent(self, user_id: UserId, key: str) -> TaskRecord | None:
        return maybe_task(await self._db.fetchrow("find_idempotent", user_id, plain_text(key)))

    async def active_task(self, session_id: SessionId) -> TaskRecord | None:
        return maybe_task(await self._db.fetchrow("active_tasks", session_id, 1))

    async def running_tasks(self) -> list[tuple[TurnId, SessionId, UserId, OwnerId | None]]:
        rows = await self._db.fetch("running_tasks")
        return [(row["turn_id"], row["session_id"], row["user_id"], row["owner_id"]) for row in rows]

    async def forget_idempotency_keys(self, before_us: int) -> int:
        return await self._db.execute("forget_idempotency_keys", before_us)
