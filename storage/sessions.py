"""Conversations: their rows, their transcripts, and how an owner opens and closes one.

open_session: lock the row -> is its owner's lease live? is the caller's? -> epoch + 1
    every write of the former owner waits for the lock and then finds its epoch stale
"""

from __future__ import annotations

from storage.database import Row, Runner
from storage.errors import OwnedElsewhere, SessionNotFound, StaleEpoch
from storage.notifications import READY_TASKS
from storage.queue_writer import new_session_params
from storage.records import (
    Fence,
    MessageRecord,
    OpenedSession,
    OwnerId,
    SessionId,
    SessionPage,
    SessionRecord,
    TaskRecord,
    UserId,
)
from storage.rows import message_record, plain_text, session_record, task_record
from storage.topic import StoreTopic
from storage.turn_writer import stale

MAX_ACTIVE_TASKS = 10_000


class SessionTopic(StoreTopic):
    """The sessions' part of `SessionStorage` in SQL."""

    async def create_session(self, session: SessionRecord) -> SessionRecord:
        await self._db.execute("create_session", *new_session_params(session))
        stored = await self.get_session(session.session_id)
        if stored is None or stored.user_id != session.user_id:
            raise SessionNotFound("there is no such session")
        return stored

    async def get_session(self, session_id: SessionId) -> SessionRecord | None:
        row = await self._db.fetchrow("get_session", session_id)
        return None if row is None else session_record(row)

    async def list_sessions(
        self, user_id: UserId | None, *, agent_id: str | None, offset: int, limit: int
    ) -> SessionPage:
        if user_id is None:
            total = await self._db.fetchrow("count_sessions", agent_id)
            rows = await self._db.fetch("list_sessions", agent_id, limit, offset)
        else:
            total = await self._db.fetchrow("count_user_sessions", agent_id, user_id)
            rows = await self._db.fetch("list_user_sessions", agent_id, limit, offset, user_id)
        return SessionPage(total["total"] if total else 0, tuple(map(session_record, rows)))

    async def update_session(
        self,
        session_id: SessionId,
        *,
        title: str | None = None,
        archived: bool | None = None,
        now_us: int,
    ) -> SessionRecord | None:
        row = await self._db.fetchrow("update_session", session_id, plain_text(title), archived, now_us)
        return None if row is None else session_record(row)

    async def delete_session(self, session_id: SessionId) -> bool:
        async def delete(tx: Runner) -> bool:
            await tx.execute("delete_session_peers", session_id)  # first, as messages that come in lock the chat first
            existed = await tx.execute("delete_session", session_id) > 0
            await tx.execute("delete_session_messages", session_id)
            await tx.execute("delete_session_events", session_id)
            await tx.execute("delete_session_attempts", session_id)
            await tx.execute("delete_session_replies", session_id)
            await tx.execute("delete_session_tasks", session_id)
            return existed

        return await self._db.transact(delete)

    async def open_session(
        self, session_id: SessionId, owner_id: OwnerId, *, seq_block: int, now_us: int
    ) -> OpenedSession:
        async def take(tx: Runner) -> tuple[Row | None, list[TaskRecord]]:
            await _check_takeover(tx, session_id, owner_id)
            row = await tx.fetchrow("open_session", session_id, owner_id, seq_block, now_us)
            await tx.execute("hold_queued", session_id)
            active = await tx.fetch("active_tasks", session_id, MAX_ACTIVE_TASKS)
            return row, [task_record(task) for task in active]

        row, tasks = await self._db.transact(take)
        if row is None:
            raise SessionNotFound("there is no such session")
        session = session_record(row)
        return OpenedSession(
            session=session,
            first_seq=session.reserved_seq - seq_block + 1,
            last_seq=row["last_seq"],
            running=_running(tasks),
            queued=tuple(task for task in tasks if task.status == "queued" and task.in_line(now_us)),
        )

    async def close_session(self, fence: Fence, *, last_seq: int, now_us: int) -> None:
        async def close(tx: Runner) -> int | None:
            if not await tx.execute("close_session", fence.session_id, fence.epoch, last_seq):
                return None
            return await tx.execute("release_next", fence.session_id, now_us)

        released = await self._db.transact(close)
        if released is None:
            raise stale(fence)
        if released:
            self._db.notify(READY_TASKS)

    async def disown_session(self, fence: Fence) -> bool:
        return await self._db.execute("disown_session", fence.session_id, fence.epoch) > 0

    async def reserve_seq(self, fence: Fence, reserved_seq: int) -> None:
        if not await self._db.execute("reserve_seq", fence.session_id, fence.epoch, reserved_seq):
            raise stale(fence)

    async def load_messages(self, session_id: SessionId, *, limit: int) -> list[MessageRecord]:
        return await self.page_messages(session_id, before=None, limit=limit)

    async def page_messages(self, session_id: SessionId, *, before: int | None, limit: int) -> list[MessageRecord]:
        if before is None:
            rows = await self._db.fetch("load_messages", session_id, limit)
        else:
            rows = await self._db.fetch("page_messages", session_id, limit, before)
        return [message_record(row) for row in reversed(rows)]


async def _check_takeover(tx: Runner, session_id: SessionId, owner_id: OwnerId) -> None:
    """Lock the session's row, then ask about leases: an answer from before the lock could be old."""
    locked = await tx.fetchrow("lock_session", session_id)
    if locked is None:
        raise SessionNotFound("there is no such session")
    if not await _is_live(tx, owner_id):
        raise StaleEpoch(f"the lease of {owner_id} has lapsed")
    current: OwnerId | None = locked["owner_id"]
    if current not in (None, owner_id) and await _is_live(tx, current):
        raise OwnedElsewhere("the session has a live owner", detail={"owner_id": current})


async def _is_live(tx: Runner, owner_id: OwnerId | None) -> bool:
    row = await tx.fetchrow("owner_is_live", owner_id)
    return row is not None and bool(row["live"])


def _running(tasks: list[TaskRecord]) -> TaskRecord | None:
    return next((task for task in tasks if task.status == "running"), None)
