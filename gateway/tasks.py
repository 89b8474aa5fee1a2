"""Background tasks on behalf of clients: checked, recorded (many at a time under load), and made known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.background import Background
from actors.clock import Clock
from actors.errors import InvalidRequest, ServiceUnavailable, SessionNotFound, UserQuotaExceeded, WunderError
from actors.events import encode_json
from actors.gathering import Gathering
from actors.handles import DirectoryHandle
from actors.logs import log
from actors.messages import PickUp, Submit
from actors.replies import Done
from actors.task_request import task_of
from actors.transcript import title_of
from gateway.owners import Owners
from gateway.protocol import TaskBody
from gateway.settings import Settings
from gateway.turns import Turns
from gateway.webhooks import Webhooks
from storage.records import (
    Enqueued,
    NewTask,
    QueueDepth,
    SessionId,
    SessionRecord,
    TaskRecord,
    UserId,
)
from storage.store import AsyncStorageBackend

_BATCH = 200
_RETRY_AFTER_S = 5.0


class _Wanted(msgspec.Struct, frozen=True):
    command: Submit
    body: TaskBody


class Recorded(msgspec.Struct, frozen=True):
    """An accepted task; `position` counts the tasks of everybody that are queued before it."""

    task: TaskRecord
    position: int


class Tasks:
    """Accepts, cancels and repeats background tasks."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncStorageBackend,
        clock: Clock,
        directory: DirectoryHandle,
        owners: Owners,
        turns: Turns,
    ) -> None:
        self._settings = settings.agent_queue
        self._store = store
        self._clock = clock
        self._directory = directory
        self._owners = owners
        self._turns = turns
        self._enqueuing: Gathering[_Wanted, Recorded | WunderError] = Gathering(
            "enqueue-tasks", self._enqueue, most=_BATCH, apart=lambda error: not error.retryable
        )
        self._webhooks = Webhooks(settings)
        self._background = Background()

    async def close(self) -> None:
        await self._background.stop()

    async def submit(self, user_id: UserId, body: TaskBody) -> Recorded:
        """Record a task; when this returns it is durable."""
        command = self._turns.command(user_id, body.question, body, session_id=body.session_id, agent_id=body.agent_id)
        command = msgspec.structs.replace(command, webhook=self._webhooks.accepted(body.webhook))
        recorded = await self._enqueuing.ask(_Wanted(command, body))
        if isinstance(recorded, WunderError):
            raise recorded
        return recorded

    async def retry(self, task: TaskRecord) -> TaskRecord:
        """Queue a dead or failed task again."""
        requeued = await self._store.requeue_task(task.turn_id, now_us=self._clock.now_us())
        if requeued.task is None:
            raise InvalidRequest(
                f"task_id: only a dead or failed task can be tried again, this one is {task.status}", field="task_id"
            )
        self.announce([requeued])
        return requeued.task

    async def refuse_if_full(self, user_id: UserId) -> None:
        """`ServiceUnavailable` or `UserQuotaExceeded` if a further task of this user would be refused."""
        refusal = self._full(user_id, await self._store.queue_depth([user_id], most=self._most))
        if refusal is not None:
            raise refusal

    @property
    def _most(self) -> int:
        return max(self._settings.max_queued, self._settings.max_queued_per_user) + 1

    async def _enqueue(self, wanted: list[_Wanted]) -> list[Recorded | WunderError]:
        now_us = self._clock.now_us()
        users = list({one.command.user_id for one in wanted})
        depth = await self._store.queue_depth(users, most=self._most)
        answers: list[Recorded | WunderError | NewTask] = []
        for one in wanted:
            refusal = self._full(one.command.user_id, depth)
            if refusal is not None:
                answers.append(refusal)
                continue
            answers.append(self._new_task(one, depth.total + 1, now_us))
            depth.by_user[one.command.user_id] += 1
            depth = msgspec.structs.replace(depth, total=depth.total + 1)
        items = [answer for answer in answers if isinstance(answer, NewTask)]
        outcomes = await self._store.enqueue_tasks(items, now_us=now_us) if items else []
        self.announce(outcomes)
        return _answers(answers, outcomes)

    def _full(self, user_id: UserId, depth: QueueDepth) -> WunderError | None:
        settings, queued = self._settings, depth.by_user[user_id]
        if queued >= settings.max_queued_per_user:
            detail: dict[str, Any] = {"reason": "user_queue_full", "queued": queued}
            return UserQuotaExceeded("too many of this user's tasks wait", detail=detail, retry_after_s=_RETRY_AFTER_S)
        if depth.total >= settings.max_queued:
            detail = {"reason": "queue_full", "queued": depth.total}
            return ServiceUnavailable("the task queue is full", detail=detail, retry_after_s=_RETRY_AFTER_S)
        return None

    def _new_task(self, one: _Wanted, position: int, now_us: int) -> NewTask:
        command, body = one.command, one.body
        run_at_us = None if body.run_at is None else round(body.run_at.timestamp() * 1_000_000)
        return background_task(
            command,
            reason="background",
            position=position,
            now_us=now_us,
            priority=body.priority,
            run_at_us=run_at_us,
            max_attempts=body.max_attempts or self._settings.max_retries + 1,
        )

    def announce(self, outcomes: Sequence[Enqueued]) -> None:
        """Tell the pools once for all of them, and each owner of its own."""
        owned = {o.task.session_id for o in outcomes if o.task is not None and o.owner_id is not None}
        for session_id in owned:
            self._background.start(self._tell_owner(session_id), f"pick-up-{session_id}")
        if any(o.task is not None and o.owner_id is None for o in outcomes):
            self._background.start(self._wake_pools(), "wake-pools")

    async def _tell_owner(self, session_id: SessionId) -> None:
        try:
            await self._owners.ask(session_id, PickUp(session_id=session_id), Done)
        except WunderError as error:
            # The session's next owner finds its tasks by itself.
            log.warning("owner_not_told", session=session_id, message=error.message)

    async def _wake_pools(self) -> None:
        try:
            await self._directory.wake_pools()
        except WunderError as error:
            log.warning("pools_not_woken", message=error.message)


def background_task(
    command: Submit,
    *,
    reason: str,
    position: int = 0,
    now_us: int,
    priority: int,
    run_at_us: int | None,
    max_attempts: int,
) -> NewTask:
    """A command as a task to enqueue; with `create` its session comes along."""
    later = run_at_us is not None and run_at_us > now_us
    task = msgspec.structs.replace(
        task_of(command, "queued", 0, now_us),
        origin="task",
        priority=priority,
        run_at_us=run_at_us if later else None,
        max_attempts=max_attempts,
    )
    session = None
    if command.create:
        session = SessionRecord(
            session_id=command.session_id,
            user_id=command.user_id,
            title=title_of(command.content),
            agent_id=command.agent_id,
            created_us=now_us,
            updated_us=now_us,
        )
    event = encode_json({"position": position, "reason": "run_at" if later else reason})
    return NewTask(task=task, session=session, event=event)


def _answers(
    answers: Sequence[Recorded | WunderError | NewTask], outcomes: Sequence[Enqueued]
) -> list[Recorded | WunderError]:
    """What became of each request, in their order."""
    found: list[Recorded | WunderError] = []
    rest = iter(outcomes)
    for answer in answers:
        if not isinstance(answer, NewTask):
            found.append(answer)
            continue
        outcome = next(rest)
        if outcome.task is None:
            found.append(SessionNotFound("there is no such session"))
        else:
            position = int(msgspec.json.decode(answer.event)["position"])
            found.append(Recorded(outcome.task, 0 if outcome.duplicate else position))
    return found
