"""Background tasks on behalf of clients: what they asked for, checked, as a task to be queued."""

from __future__ import annotations

import msgspec

from actors.channels.origin import ChannelOrigin
from actors.clock import Clock
from actors.errors import Conflict, InvalidRequest
from actors.events import encode_json
from actors.task_intake import Recorded, TaskIntake, WantedTask
from gateway.protocol import TaskBody
from gateway.settings import Settings
from gateway.turns import Turns
from gateway.webhooks import Webhooks
from storage.records import TaskRecord, UserId
from storage.store import AsyncStorageBackend

_POSITION_MOST = 1000
"""Further behind a place is not told: looking it up would cost more than it says."""


class Tasks:
    """Accepts and repeats background tasks."""

    def __init__(
        self, settings: Settings, store: AsyncStorageBackend, clock: Clock, intake: TaskIntake, turns: Turns
    ) -> None:
        self._webhooks = Webhooks(settings)
        self._store = store
        self._clock = clock
        self._intake = intake
        self._turns = turns

    async def close(self) -> None:
        await self._intake.close()

    async def submit(self, user_id: UserId, body: TaskBody, reply: ChannelOrigin | None = None) -> Recorded:
        """Record a task, whose answer goes to a chat if `reply` says so; when this returns it is durable."""
        command = self._turns.command(user_id, body.question, body, session_id=body.session_id, agent_id=body.agent_id)
        wanted = WantedTask(
            command=msgspec.structs.replace(command, webhook=self._webhooks.accepted(body.webhook), channel=reply),
            priority=body.priority,
            run_at_us=None if body.run_at is None else round(body.run_at.timestamp() * 1_000_000),
            max_attempts=body.max_attempts or 0,
        )
        return await self._intake.submit(wanted)

    async def answer(self, task: TaskRecord, user_id: UserId, call_id: str, answer: str) -> TaskRecord:
        """Answer what a turn has asked; it goes on."""
        known = await self._store.find_reply(task.turn_id, call_id)
        given = encode_json(answer)
        if known is not None:
            if known == given:
                return task  # the same request again
            raise Conflict("call_id: this question was answered before", field="call_id")
        answered = await self._store.answer_turn(task, call_id, given, user_id=user_id, now_us=self._clock.now_us())
        if answered.task is None:
            raise Conflict(
                f"call_id: the task does not wait for an answer to {call_id[:100]!r}, it is {task.shown_status}",
                field="call_id",
            )
        self._intake.announce([answered])
        return answered.task

    async def place(self, task: TaskRecord) -> tuple[int | None, float | None]:
        """Where a queued task stands now and how long it may wait (s); None for what is not known."""
        if task.shown_status != "queued":
            return None, None
        position = await self._store.queue_position(task.turn_id, most=_POSITION_MOST)
        return position, None if position is None else self._intake.wait_s(position)

    async def retry(self, task: TaskRecord) -> TaskRecord:
        """Queue a dead or failed task again."""
        requeued = await self._store.requeue_task(task.turn_id, now_us=self._clock.now_us())
        if requeued.task is None:
            raise InvalidRequest(
                f"task_id: only a dead or failed task can be tried again, this one is {task.status}", field="task_id"
            )
        self._intake.announce([requeued])
        return requeued.task
