"""Turns that wait, for their children or for a person.

Such a turn is queued without its session, and due when what it waits for has come. Whoever records a child's end asks
`end_wait` after that commit, and whoever suspends a turn asks it after its own: of two that happen at the same moment
the later one sees the other. `end_waits` is for those who died before they asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.database import Runner
from storage.notifications import READY_TASKS
from storage.records import Enqueued, EventRecord, Fence, SessionId, TaskRecord, TurnId, UserId
from storage.rows import maybe_task, plain_text, task_record
from storage.topic import StoreTopic
from storage.turn_writer import check_fence, write_rows


class ChildTopic(StoreTopic):
    """`ChildStorage` in SQL."""

    async def suspend_turn(
        self,
        fence: Fence,
        task: TaskRecord,
        *,
        waits_for: str,
        shown: bytes,
        until_us: int,
        events: Sequence[EventRecord],
        now_us: int,
    ) -> bool:
        async def body(tx: Runner) -> bool:
            await check_fence(tx, fence)
            target = (task.turn_id, fence.session_id, task.attempt)
            if not await tx.execute("suspend_task", *target, plain_text(waits_for), shown.decode(), until_us):
                return False
            await write_rows(tx, fence.session_id, now_us, [], events)
            return True

        return await self._db.transact(body)

    async def end_wait(self, turn_id: TurnId, *, now_us: int) -> SessionId | None:
        row = await self._db.fetchrow("end_wait", turn_id, now_us)
        return None if row is None else row["session_id"]

    async def end_waits(self, *, now_us: int) -> int:
        return await self._db.execute("end_waits", now_us)

    async def list_children(self, parent_id: TurnId, *, limit: int) -> list[TaskRecord]:
        return [task_record(row) for row in await self._db.fetch("list_children", parent_id, limit)]

    async def cancel_children(self, parent_id: TurnId) -> list[tuple[TurnId, SessionId]]:
        rows = await self._db.fetch("cancel_children", parent_id)
        return [(row["turn_id"], row["session_id"]) for row in rows]

    async def stray_children(self, *, limit: int) -> list[tuple[TurnId, SessionId]]:
        rows = await self._db.fetch("stray_children", limit)
        return [(row["turn_id"], row["session_id"]) for row in rows]

    async def answer_turn(
        self, task: TaskRecord, call_id: str, answer: bytes, *, user_id: UserId, now_us: int
    ) -> Enqueued:
        async def body(tx: Runner) -> Enqueued:
            session = await tx.fetchrow("lock_session", task.session_id)
            waits_for = plain_text(person(call_id))
            found = maybe_task(await tx.fetchrow("answer_wait", task.turn_id, waits_for)) if session else None
            if session is None or found is None:
                return Enqueued(task=None)
            await tx.execute("add_reply", task.turn_id, plain_text(call_id), user_id, answer.decode(), now_us)
            live = await tx.fetchrow("owner_is_live", session["owner_id"])
            if live is not None and live["live"]:
                return Enqueued(task=found, owner_id=session["owner_id"])
            await tx.execute("release_next", task.session_id, now_us)
            return Enqueued(task=found)

        answered = await self._db.transact(body)
        if answered.task is not None and answered.owner_id is None:
            self._db.notify(READY_TASKS)
        return answered

    async def find_reply(self, turn_id: TurnId, call_id: str) -> bytes | None:
        row = await self._db.fetchrow("find_reply", turn_id, plain_text(call_id))
        return None if row is None else row["body"].encode()


def person(call_id: str) -> str:
    """What a turn waits for that has asked a person."""
    return f"person:{call_id}"
