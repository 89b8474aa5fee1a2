"""Background tasks on behalf of clients: checked, recorded (many at a time under load), and made known."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.background import Background
from actors.clock import Clock
from actors.errors import InvalidRequest, SessionNotFound, WunderError
from actors.gathering import Gathering
from actors.handles import DirectoryHandle
from actors.logs import log
from actors.messages import PickUp, Submit
from actors.queue_limits import queue_depth, refusal
from actors.replies import Done
from actors.task_request import background_task
from gateway.owners import Owners
from gateway.protocol import TaskBody
from gateway.settings import Settings
from gateway.turns import Turns
from storage.records import (
    Enqueued,
    NewTask,
    SessionId,
    TaskRecord,
    UserId,
)
from storage.store import AsyncStorageBackend

_BATCH = 200


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
        self._background = Background()

    async def close(self) -> None:
        await self._background.stop()

    async def submit(self, user_id: UserId, body: TaskBody) -> Recorded:
        """Record a task; when this returns it is durable."""
        command = self._turns.command(user_id, body.question, body, session_id=body.session_id, agent_id=body.agent_id)
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

    async def _enqueue(self, wanted: list[_Wanted]) -> list[Recorded | WunderError]:
        now_us = self._clock.now_us()
        users = list({one.command.user_id for one in wanted})
        depth = await queue_depth(self._store, self._settings, users)
        answers: list[Recorded | WunderError | NewTask] = []
        for one in wanted:
            full = refusal(self._settings, one.command.user_id, depth)
            if full is not None:
                answers.append(full)
                continue
            answers.append(self._new_task(one, depth.total + 1, now_us))
            depth.by_user[one.command.user_id] += 1
            depth = msgspec.structs.replace(depth, total=depth.total + 1)
        items = [answer for answer in answers if isinstance(answer, NewTask)]
        outcomes = await self._store.enqueue_tasks(items, now_us=now_us) if items else []
        self.announce(outcomes)
        return _answers(answers, outcomes)

    def _new_task(self, one: _Wanted, position: int, now_us: int) -> NewTask:
        body = one.body
        return background_task(
            one.command,
            self._settings,
            position=position,
            now_us=now_us,
            run_at_us=None if body.run_at is None else round(body.run_at.timestamp() * 1_000_000),
            priority=body.priority,
            max_attempts=body.max_attempts,
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
