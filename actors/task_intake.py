"""Takes background tasks in: checked against the queue's bounds, recorded many at a time, and made known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.background import Background
from actors.clock import Clock
from actors.errors import ServiceUnavailable, SessionNotFound, UserQuotaExceeded, WunderError
from actors.events import encode_json
from actors.gathering import Gathering
from actors.handles import DirectoryHandle
from actors.logs import log
from actors.messages import PickUp, Submit
from actors.owners import Owners
from actors.replies import Done
from actors.session import new_session
from actors.settings import AgentQueueSettings
from actors.task_request import task_of
from storage.records import Enqueued, NewTask, OwnerId, QueueDepth, SessionId, TaskRecord, TurnId, UserId
from storage.store import AsyncStorageBackend

_BATCH = 200
_RETRY_AFTER_S = 5.0
_RATE_VALID_S = 60.0


class WantedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A background task to be: the command of its turn, and how it is queued.

    `max_attempts` 0 takes the setting. `parent_id` is the turn that started it as a child, `depth` levels down.
    `reason` is what its `queued` event says.
    """

    command: Submit
    priority: int = 0
    run_at_us: int | None = None
    max_attempts: int = 0
    parent_id: TurnId | None = None
    depth: int = 0
    reason: str = "background"


class Recorded(msgspec.Struct, frozen=True):
    """An accepted task; `position` counts the queued tasks of everybody, this one included.

    `estimated_wait_s` is None where nothing is known about it.
    """

    task: TaskRecord
    position: int
    estimated_wait_s: float | None = None


class TaskIntake:
    """One per process; what comes in at the same time is recorded together."""

    def __init__(
        self,
        settings: AgentQueueSettings,
        store: AsyncStorageBackend,
        clock: Clock,
        directory: DirectoryHandle,
        owners: Owners,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._directory = directory
        self._owners = owners
        self._enqueuing: Gathering[WantedTask, Recorded | WunderError] = Gathering(
            "enqueue-tasks", self._enqueue, most=_BATCH, apart=lambda error: not error.retryable
        )
        self._background = Background()
        self._per_s: float | None = None
        self._per_s_until_s = 0.0

    async def close(self) -> None:
        await self._enqueuing.stop()
        await self._background.stop()

    async def submit(self, wanted: WantedTask) -> Recorded:
        """Record a task; when this returns it is durable."""
        recorded = await self._enqueuing.ask(wanted)
        if isinstance(recorded, WunderError):
            raise recorded
        return recorded

    def wait_s(self, position: int) -> float | None:
        """How long the tasks before it take at the rate at which the pools work; None if that was not told lately."""
        if not self._per_s or self._clock.monotonic_s() > self._per_s_until_s:
            return None
        return round((position - 1) / self._per_s, 1)

    async def refuse_if_full(self, user_id: UserId) -> None:
        """`ServiceUnavailable` or `UserQuotaExceeded` if a further task of this user would be refused now."""
        refusal = self.full(user_id, await self.depth([user_id]))
        if refusal is not None:
            raise refusal

    async def _enqueue(self, wanted: list[WantedTask]) -> list[Recorded | WunderError]:
        now_us = self._clock.now_us()
        users = list({one.command.user_id for one in wanted})
        depth = await self.depth(users)
        answers: list[Recorded | WunderError | NewTask] = []
        for one in wanted:
            refusal = self.full(one.command.user_id, depth)
            if refusal is not None:
                answers.append(refusal)
                continue
            answers.append(self.new_task(one, depth.total + 1, now_us))
            depth.by_user[one.command.user_id] += 1
            depth = msgspec.structs.replace(depth, total=depth.total + 1)
        items = [answer for answer in answers if isinstance(answer, NewTask)]
        outcomes = await self._store.enqueue_tasks(items, now_us=now_us) if items else []
        self.announce(outcomes)
        return _answers(answers, outcomes)

    async def depth(self, users: Sequence[UserId]) -> QueueDepth:
        """How full the queue is, counted as far as its bounds need it."""
        most = max(self._settings.max_queued, self._settings.max_queued_per_user) + 1
        return await self._store.queue_depth(users, most=most)

    def full(self, user_id: UserId, depth: QueueDepth) -> WunderError | None:
        """Why one more task of this user is refused; None if there is room."""
        settings, queued = self._settings, depth.by_user[user_id]
        if queued >= settings.max_queued_per_user:
            detail: dict[str, Any] = {"reason": "user_queue_full", "queued": queued}
            return UserQuotaExceeded("too many of this user's tasks wait", detail=detail, retry_after_s=_RETRY_AFTER_S)
        if depth.total >= settings.max_queued:
            detail = {"reason": "queue_full", "queued": depth.total}
            return ServiceUnavailable("the task queue is full", detail=detail, retry_after_s=_RETRY_AFTER_S)
        return None

    def new_task(self, one: WantedTask, position: int, now_us: int) -> NewTask:
        """What is to be recorded; with `create` in its command the session comes along. Pure, and for any thread."""
        command, run_at_us = one.command, one.run_at_us
        later = run_at_us is not None and run_at_us > now_us
        task = msgspec.structs.replace(
            task_of(command, "queued", 0, now_us),
            origin="task",
            priority=one.priority,
            run_at_us=run_at_us if later else None,
            max_attempts=one.max_attempts or self._settings.max_retries + 1,
            parent_id=one.parent_id,
            depth=one.depth,
        )
        session = new_session(command, now_us) if command.create else None
        data: dict[str, Any] = {"position": position, "reason": "run_at" if later else one.reason}
        # A task of a session that there is waits for what that does first.
        if session is not None and not later and (wait_s := self.wait_s(position)) is not None:
            data["estimated_wait_s"] = wait_s
        return NewTask(task=task, session=session, event=encode_json(data))

    def announce(self, outcomes: Sequence[Enqueued]) -> None:
        """Tell the pools once for all of them, and each owner of its own."""
        owned = {o.task.session_id: o.owner_id for o in outcomes if o.task is not None and o.owner_id is not None}
        for session_id, owner_id in owned.items():
            self._background.start(self._tell_owner(session_id, owner_id), f"pick-up-{session_id}")
        if any(o.task is not None and o.owner_id is None for o in outcomes):
            self._background.start(self._wake_pools(), "wake-pools")

    async def _tell_owner(self, session_id: SessionId, owner_id: OwnerId) -> None:
        """The one whom the database names: a pool that had the session before says `Done` and does nothing."""
        try:
            await self._owners.ask(session_id, PickUp(session_id=session_id), Done, hint=owner_id)
        except WunderError as error:
            # The session's next owner finds its tasks by itself.
            log.warning("owner_not_told", session=session_id, message=error.message)

    async def _wake_pools(self) -> None:
        try:
            self._per_s = await self._directory.wake_pools()
            self._per_s_until_s = self._clock.monotonic_s() + _RATE_VALID_S
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
            data = msgspec.json.decode(answer.event)
            place = (0, None) if outcome.duplicate else (data["position"], data.get("estimated_wait_s"))
            found.append(Recorded(outcome.task, *place))
    return found
