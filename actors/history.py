"""A session's transcript in memory: loaded when it is first needed, and kept up by the turns that add to it."""

from __future__ import annotations

from typing import Any

from actors.events import decode_json, encode_json
from actors.models.base import Usage
from actors.session import Session
from actors.task_request import question_of
from actors.transcript import Unfinished, unfinished
from actors.turn_runner import Services
from storage.records import MessageRecord, TaskRecord, TurnId

FROM_THE_START = Unfinished(next_round=1, open_calls=(), usage=Usage())


class History:
    """`messages` is the list that running turns read and extend; None until it is loaded."""

    def __init__(self, services: Services, session: Session, *, empty: bool) -> None:
        self._services = services
        self._session = session
        self.messages: list[dict[str, Any]] | None = [] if empty else None

    async def load(self) -> list[dict[str, Any]]:
        if self.messages is None:
            self.messages = [decode_json(record.body) for record in await self._records()]
        return self.messages

    def begin(self, task: TaskRecord) -> tuple[Unfinished, list[dict[str, Any]]]:
        """From the start, with the question that is recorded with the turn's first commit."""
        question = question_of(task)
        if self.messages is not None:
            self.messages.append(question)
        return FROM_THE_START, [question]

    async def begin_again(self, task: TaskRecord) -> tuple[Unfinished, list[dict[str, Any]]]:
        """Where the turn stands according to its committed messages; it may have none yet."""
        records = await self._records()
        bodies = [decode_json(record.body) for record in records]
        self.messages = bodies
        if not any(record.turn_id == task.turn_id for record in records):
            return self.begin(task)
        return unfinished(records, bodies, task.turn_id), []

    def record(self, turn_id: TurnId, body: dict[str, Any]) -> MessageRecord:
        """A message at the end, before any round."""
        return MessageRecord(
            session_id=self._session.session_id,
            position=self._session.next_position,
            turn_id=turn_id,
            round=0,
            role=body["role"],
            body=encode_json(body),
            created_us=self._services.clock.now_us(),
        )

    async def _records(self) -> list[MessageRecord]:
        most = self._services.settings.sessions.max_history_messages
        return await self._services.store.load_messages(self._session.session_id, limit=most)
