"""Background tasks as one statement for many of them: what Postgres does best."""

from __future__ import annotations

from collections.abc import Sequence

from storage.database import Database
from storage.merged_turn_writer import EVENT_COLUMNS, MESSAGE_COLUMNS
from storage.outbox_writer import outbox_json
from storage.queue_writer import Finish, FinishedTurn, claimed_task
from storage.records import ClaimedTask, NewTask, OwnerId, SessionId, SessionRecord, TurnId
from storage.rows import columns, event_rows, message_rows, plain_text
from storage.turn_writer import completion_params


class MergedQueueWriter:
    """A `QueueWriter` with a statement per call."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def enqueue_new(self, items: Sequence[NewTask], now_us: int) -> set[TurnId]:
        rows = [
            (
                item.task.turn_id,
                item.task.session_id,
                item.task.user_id,
                plain_text(item.task.idempotency_key),
                item.task.priority,
                item.task.run_at_us,
                item.task.max_attempts,
                plain_text(item.session.title) if item.session else "",
                plain_text(item.session.agent_id) if item.session else None,
                item.task.request.decode(),
                item.task.created_us,
                plain_text(item.task.parent_id),
                item.task.depth,
            )
            for item in items
        ]
        data = [item.event.decode() for item in items]
        added = await self._db.fetch("enqueue_new_tasks", *columns(rows, 13), now_us, data)
        return {row["turn_id"] for row in added}

    async def claim(
        self, owner_id: OwnerId, *, limit: int, suspects: int, seq_block: int, now_us: int
    ) -> list[ClaimedTask]:
        rows = await self._db.fetch("claim_tasks", owner_id, limit, seq_block, now_us, min(suspects, limit))
        claimed = []
        for row in rows:
            session = SessionRecord(
                session_id=row["session_id"],
                user_id=row["user_id"],
                title=row["title"],
                agent_id=row["session_agent_id"],
                archived=row["archived"],
                created_us=row["session_created_us"],
                updated_us=row["updated_us"],
                owner_id=row["owner_id"],
                epoch=row["epoch"],
                reserved_seq=row["reserved_seq"],
                message_count=row["message_count"],
            )
            claimed.append(claimed_task(row, session, row["last_seq"], seq_block, row["was"]))
        return claimed

    async def promote_due(self, *, limit: int, now_us: int) -> list[tuple[SessionId, OwnerId | None]]:
        rows = await self._db.fetch("promote_due", now_us, limit)
        return [(row["session_id"], row["owner_id"]) for row in rows]

    async def finish_and_leave(self, turns: Sequence[FinishedTurn]) -> list[Finish]:
        ends = [
            (
                turn.fence.session_id,
                turn.fence.epoch,
                turn.end.turn_id,
                turn.end.attempt,
                *completion_params(turn.end),
                turn.last_seq,
            )
            for turn in turns
        ]
        messages = [row for turn in turns for row in message_rows(turn.messages)]
        events = [row for turn in turns for row in event_rows(turn.events)]
        rows = await self._db.fetch(
            "finish_and_leave",
            *columns(ends, 11),
            *columns(messages, MESSAGE_COLUMNS),
            *columns(events, EVENT_COLUMNS),
            outbox_json([item for turn in turns for item in turn.end.outbox]),
        )
        found = {row["turn_id"]: Finish(True, row["done"], row["following"] > 0) for row in rows}
        return [found.get(turn.end.turn_id, Finish(fenced=False, done=False)) for turn in turns]
