"""Accepts a session's turns and starts them one after the other.

    accept ──► running (permit held) ─► TurnRunner ─► end recorded ─┐
           └─► queued  ◄──────────────────────────────  advance ◄───┘   the next one, with the permit that is held

Every step that changes the task's row is one fenced commit. After a failed commit it is unknown what was written, so
the session is given up: the next owner reads the truth from the database.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from actors.completion_webhooks import completion_of, finish_in_store
from actors.errors import WunderError
from actors.events import TERMINAL
from actors.handles import DirectoryHandle
from actors.history import FROM_THE_START, History
from actors.logs import log
from actors.messages import Submit
from actors.replies import Permit, Submitted
from actors.session import Enqueue, RunningTurn, Session
from actors.session_stream import Draft, SessionStream
from actors.task_request import hopeless, question_of, request_cursor, task_of
from actors.transcript import Unfinished, user_message
from actors.turn_runner import RETRIED, SUSPENDED, FinishTurn, Services, TurnRunner
from storage.records import EventRecord, OpenedSession, TaskRecord, TerminalStatus, TurnId

MAX_PICKED_UP = 200


class TurnQueue:
    """The turns of one open session. Callers hold `lock`; `abandon` gives the session up."""

    def __init__(
        self,
        services: Services,
        opened: OpenedSession,
        session: Session,
        stream: SessionStream,
        directory: DirectoryHandle,
        *,
        actor: str,
        abandon: Callable[[str], None],
    ) -> None:
        self._services = services
        self._session = session
        self._stream = stream
        self._directory = directory
        self._actor = actor
        self._abandon = abandon
        self._history = History(services, session, empty=opened.session.message_count == 0)
        self.lock = asyncio.Lock()
        self.task: asyncio.Task[None] | None = None
        self.stopped = False
        self.left = False
        self.linger_s = services.settings.sessions.permit_linger_s
        self.idle_since_s = 0.0

    async def start_new(self, command: Submit) -> Submitted:
        """Accept a turn and start it; the permit is held."""
        task = task_of(command, "running", self._stream.latest, self._services.clock.now_us())
        history = await self._history.load()
        message = user_message(command.content, command.attachments)
        accepted = await self._accept(task, [message], [])
        if accepted is not None:
            await self.advance()
            return self.duplicate(accepted)
        self._session.next_position += 1
        history.append(message)
        self._spawn(task, FROM_THE_START)
        return self._submitted(task, position=0, reason=None)

    async def enqueue(self, command: Submit, decision: Enqueue) -> Submitted:
        """Accept a turn that waits; with `interrupt` what runs is cancelled and it is next."""
        task = task_of(command, "queued", self._stream.latest, self._services.clock.now_us())
        queued = Draft("queued", task.turn_id, {"position": decision.position, "reason": decision.reason})
        accepted = await self._accept(task, [], [queued])
        if accepted is not None:
            await self.advance()
            return self.duplicate(accepted)
        if decision.interrupt and (begun := self._session.take_begun()) is not None:
            await self.finish_queued(begun, "interrupted")
        self._session.enqueue(task, front=decision.interrupt)
        running = self._session.running
        if decision.interrupt and running is not None and not running.finishing:
            running.token.cancel("interrupted")
            await self._services.store.request_cancel(running.turn_id)
        await self.advance()
        return self._submitted(task, position=decision.position, reason=decision.reason)

    async def _accept(self, task: TaskRecord, messages: list[dict[str, Any]], drafts: list[Draft]) -> TaskRecord | None:
        """Record the task; the earlier one if its idempotency key is known."""
        earlier: list[TaskRecord] = []
        records = [self._history.record(task.turn_id, message) for message in messages]

        async def write(rows: Sequence[EventRecord]) -> bool:
            accepted = await self._services.store.accept_turn(self._session.fence, task, messages=records, events=rows)
            if accepted.duplicate is not None:
                earlier.append(accepted.duplicate)
            return accepted.duplicate is None

        with self._giving_up_on_failure():
            await self._stream.commit(drafts, write)
        return earlier[0] if earlier else None

    async def earlier(self, command: Submit) -> TaskRecord | None:
        """The task that this request's idempotency key already has."""
        if command.idempotency_key is None:
            return None
        return await self._services.store.find_idempotent(command.user_id, command.idempotency_key)

    def _submitted(self, task: TaskRecord, *, position: int, reason: str | None) -> Submitted:
        return Submitted(
            session_id=task.session_id,
            turn_id=task.turn_id,
            status=task.status,
            after=request_cursor(task),
            epoch=self._session.fence.epoch,
            latest=self._stream.latest,
            position=position,
            reason=reason,
        )

    def duplicate(self, task: TaskRecord) -> Submitted:
        """The first answer again."""
        return Submitted(
            session_id=task.session_id,
            turn_id=task.turn_id,
            status=task.status,
            after=request_cursor(task),
            epoch=self._session.fence.epoch,
            latest=self._stream.latest,
            duplicate=True,
        )

    async def advance(self) -> None:
        """Start what is next, with the permit that is held or asked for; without work, give the permit back."""
        session = self._session
        if session.running is not None or self.stopped:
            return
        if not session.busy:
            self.idle_since_s = self._services.clock.monotonic_s()
            if session.permit != "held" or not self.linger_s:
                await self.release()
            return
        if session.permit == "waiting":
            return
        if session.crashed is None and session.queue and self._too_early(session.queue[0]):
            await self.release()
            return
        if session.permit != "held" and not (await self.acquire(wait=True)).granted:
            return
        with self._giving_up_on_failure():
            if session.crashed is not None:
                await self._resume(session.crashed)
            while session.running is None and session.queue and not self.stopped:
                await self._start_queued(session.queue[0])
                session.queue.popleft()
        if not session.busy:
            await self.advance()

    @property
    def keeps_permit(self) -> bool:
        """Holds a permit, and has nothing to run."""
        return self._session.permit == "held" and not self._session.busy

    def return_idle(self) -> bool:
        """Give an idle permit back by word alone: the directory has asked for it."""
        if not self.keeps_permit or self.lock.locked():
            return False
        self._session.permit = "none"
        return True

    async def give_back(self) -> None:
        """Release the permit of a session that has nothing to run."""
        async with self.lock:
            if not self._session.busy:
                await self.release()

    async def release(self) -> None:
        """Give the permit back, or the place in the queue for it."""
        session = self._session
        if session.permit != "none":
            session.permit = "unsure"
            await self._directory.release(session.session_id, self._actor)
            session.permit = "none"

    async def _resume(self, crashed: TaskRecord) -> None:
        """Take up a turn that ran when the last owner died, from its last committed round."""
        services = self._services
        task = await services.store.resume_turn(self._session.fence, crashed.turn_id, now_us=services.clock.now_us())
        self._session.crashed = None
        if task is None:
            return
        begin, opening = await self._history.begin_again(task)
        self._spawn(task, begin, resumed=True, opening=opening)

    def _too_early(self, task: TaskRecord) -> bool:
        return task.run_at_us is not None and task.run_at_us > self._services.clock.now_us()

    async def run_claimed(self, task: TaskRecord, finish: FinishTurn, before: Callable[[], Awaitable[None]]) -> None:
        """Run a task that was claimed with this session, to its end or until it is to be tried again."""
        async with self.lock:
            await before()
            self._session.crashed = None
            await self._history.load()
            begin, opening = await self._history.begin_again(task) if task.attempt > 1 else self._history.begin(task)
            self._stream.announce(Draft("queue_start", task.turn_id, {}))
            self._spawn(task, begin, resumed=task.attempt > 1, opening=opening, finish=finish)
        if self.task is not None:
            await asyncio.wait([self.task])

    async def pick_up(self) -> None:
        """Learn of tasks that were queued without this owner."""
        async with self.lock:
            tasks = await self._services.store.queued_tasks(self._session.session_id, limit=MAX_PICKED_UP)
            self._session.pick_up(tasks, self._services.clock.now_us())
            await self.advance()

    async def _start_queued(self, queued: TaskRecord) -> None:
        history = await self._history.load()
        again = queued.attempt > 0
        message = question_of(queued)
        records = [] if again else [self._history.record(queued.turn_id, message)]
        started: list[TaskRecord] = []

        async def write(rows: Sequence[EventRecord]) -> bool:
            task = await self._services.store.start_turn(
                self._session.fence,
                queued.turn_id,
                messages=records,
                events=rows,
                now_us=self._services.clock.now_us(),
            )
            if task is None:
                # A try before this one may have been made without our hearing of it.
                task = await self._services.store.get_task(queued.turn_id)
            if task is None or task.status != "running":
                return False
            started.append(task)
            return True

        if await self._stream.commit([Draft("queue_start", queued.turn_id, {})], write):
            if again:
                begin, opening = await self._history.begin_again(queued)
                self._spawn(started[-1], begin, resumed=True, opening=opening)
                return
            self._session.next_position += len(records)
            history.append(message)
            self._spawn(started[-1], FROM_THE_START)
            return
        current = await self._services.store.get_task(queued.turn_id)
        if current is not None and current.status == "queued":
            await self.finish_queued(current)

    def _spawn(
        self,
        task: TaskRecord,
        begin: Unfinished,
        *,
        resumed: bool = False,
        opening: Sequence[dict[str, Any]] = (),
        finish: FinishTurn | None = None,
    ) -> None:
        if self.stopped:
            return  # the session is being left: its next owner resumes the turn
        running = self._session.start(task, resumed=resumed)
        if task.cancel_requested:
            running.token.cancel()
        self.task = asyncio.create_task(
            self._run(running, begin, opening, finish), name=f"turn-{self._session.session_id}-{running.turn_id}"
        )

    async def _run(
        self, running: RunningTurn, begin: Unfinished, opening: Sequence[dict[str, Any]], finish: FinishTurn | None
    ) -> None:
        assert self._history.messages is not None  # noqa: S101 - loaded before a turn starts
        runner = TurnRunner(
            self._services,
            self._session,
            self._stream,
            self._history.messages,
            running,
            begin=begin,
            opening=opening,
            finish=finish,
        )
        try:
            if (why := hopeless(running.task, self._services.settings, self._services.clock.now_us())) is not None:
                await runner.give_up(why)
            else:
                await runner.run()
        except WunderError as error:
            self._abandon(type(error).__name__)
            return
        except BaseException as error:
            # Nobody foresaw this (or the session was given up before): the next owner resumes the turn.
            self._abandon(type(error).__name__)
            raise
        if runner.posted:
            self._directory.ring_outboxes()
        async with self.lock:
            self._session.finished(running.status)
            self.task = None
            if running.status in (RETRIED, SUSPENDED) and finish is None:
                await self._keep_for_later(running.turn_id)
            if running.status == SUSPENDED:
                self._services.children.suspended(running.turn_id)
            elif running.status != RETRIED:
                self._services.children.ended(running.task, running.status)
            try:
                await self.advance()
            except WunderError as error:
                log.warning("session_not_advanced", session=self._session.session_id, error=type(error).__name__)

    async def _keep_for_later(self, turn_id: TurnId) -> None:
        """A turn that is tried again, or waits for others, keeps its place at the head of its session's line."""
        with contextlib.suppress(WunderError):
            task = await self._services.store.get_task(turn_id)
            if task is not None and task.status == "queued":
                self._session.enqueue(task, front=True)

    async def finish_queued(self, task: TaskRecord, status: TerminalStatus = "cancelled") -> None:
        """End a turn that does not run."""
        end = completion_of(task, status, stop_reason=status, now_us=self._services.clock.now_us())

        async def write(rows: Sequence[EventRecord]) -> bool:
            return await finish_in_store(self._services.store, self._session.fence, end, [], rows)

        terminal = Draft(TERMINAL, task.turn_id, {"status": status, "stop_reason": status})
        with self._giving_up_on_failure():
            if await self._stream.commit([terminal], write):
                self._services.ended[status] += 1
                self._services.children.ended(task, status)
                if end.outbox:
                    self._directory.ring_outboxes()

    async def acquire(self, *, wait: bool) -> Permit:
        """The session's permit, or (with `wait`) a place in the queue for it."""
        session = self._session
        if session.permit == "held":
            return Permit(granted=True)
        permit = await self._directory.acquire(session.session_id, session.user_id, self._actor, wait=wait)
        session.permit = "held" if permit.granted else "waiting" if permit.waiting else "none"
        return permit

    @contextlib.contextmanager
    def _giving_up_on_failure(self) -> Iterator[None]:
        """A failed commit leaves unknown what was written: the next owner finds out."""
        try:
            yield
        except Exception as error:
            self._abandon(type(error).__name__)
            raise
