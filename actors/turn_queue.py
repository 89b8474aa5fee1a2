"""Accepts a session's turns and starts them one after the other.

    accept ──► running (permit held) ─► TurnRunner ─► end recorded ─┐
           └─► queued  ◄──────────────────────────────  advance ◄───┘   the next one, with the permit that is held

Every step that changes the task's row is one fenced commit. After a failed commit it is unknown what was written, so
the session is given up: the next owner reads the truth from the database.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from actors.errors import WunderError
from actors.events import TERMINAL, decode_json, encode_json
from actors.handles import DirectoryHandle
from actors.logs import log
from actors.messages import Permit, Submit, Submitted
from actors.models.base import Usage
from actors.session import Enqueue, RunningTurn, Session
from actors.session_stream import Draft, SessionStream
from actors.transcript import Unfinished, unfinished, user_message
from actors.turn_runner import Services, TurnRunner, request_of
from storage.records import EventRecord, MessageRecord, OpenedSession, TaskRecord, TerminalStatus, TurnId

_FROM_THE_START = Unfinished(next_round=1, open_calls=(), usage=Usage())


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
        self._history: list[dict[str, Any]] | None = [] if opened.session.message_count == 0 else None
        self.lock = asyncio.Lock()
        self.task: asyncio.Task[None] | None = None
        self.stopped = False
        self.linger_s = services.settings.sessions.permit_linger_s
        self.idle_since_s = 0.0

    async def start_new(self, command: Submit) -> Submitted:
        """Accept a turn and start it; the permit is held."""
        task = self._task_record(command, "running")
        history = await self._load_history()
        message = user_message(command.content, command.attachments)
        accepted = await self._accept(task, [message], [])
        if accepted is not None:
            await self.advance()
            return self.duplicate(accepted)
        self._session.next_position += 1
        history.append(message)
        self._spawn(task, _FROM_THE_START)
        return self._submitted(task, position=0, reason=None)

    async def enqueue(self, command: Submit, decision: Enqueue) -> Submitted:
        """Accept a turn that waits; with `interrupt` what runs is cancelled and it is next."""
        task = self._task_record(command, "queued")
        queued = Draft("queued", task.turn_id, {"position": decision.position, "reason": decision.reason})
        accepted = await self._accept(task, [], [queued])
        if accepted is not None:
            await self.advance()
            return self.duplicate(accepted)
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
        records = [self._message(task.turn_id, message) for message in messages]

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
        records = await services.store.load_messages(
            self._session.session_id, limit=services.settings.sessions.max_history_messages
        )
        bodies = [decode_json(record.body) for record in records]
        self._history = bodies
        self._spawn(task, unfinished(records, bodies, task.turn_id), resumed=True)

    async def _start_queued(self, queued: TaskRecord) -> None:
        history = await self._load_history()
        command = request_of(queued)
        message = user_message(command.content, command.attachments)
        record = self._message(queued.turn_id, message)
        started: list[TaskRecord] = []

        async def write(rows: Sequence[EventRecord]) -> bool:
            task = await self._services.store.start_turn(
                self._session.fence,
                queued.turn_id,
                messages=[record],
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
            self._session.next_position += 1
            history.append(message)
            self._spawn(started[-1], _FROM_THE_START)
            return
        current = await self._services.store.get_task(queued.turn_id)
        if current is not None and current.status == "queued":
            await self.finish_queued(current)

    def _spawn(self, task: TaskRecord, begin: Unfinished, *, resumed: bool = False) -> None:
        if self.stopped:
            return  # the session is being left: its next owner resumes the turn
        running = self._session.start(task, resumed=resumed)
        if task.cancel_requested:
            running.token.cancel()
        self.task = asyncio.create_task(
            self._run(running, begin), name=f"turn-{self._session.session_id}-{running.turn_id}"
        )

    async def _run(self, running: RunningTurn, begin: Unfinished) -> None:
        assert self._history is not None  # noqa: S101 - loaded before a turn starts
        runner = TurnRunner(self._services, self._session, self._stream, self._history, running, begin=begin)
        try:
            if running.task.crashes > self._services.settings.sessions.max_crashes:
                await runner.give_up()
            else:
                await runner.run()
        except WunderError as error:
            self._abandon(type(error).__name__)
            return
        except BaseException as error:
            # Nobody foresaw this (or the session was given up before): the next owner resumes the turn.
            self._abandon(type(error).__name__)
            raise
        async with self.lock:
            self._session.finished(running.status)
            self.task = None
            try:
                await self.advance()
            except WunderError as error:
                log.warning("session_not_advanced", session=self._session.session_id, error=type(error).__name__)

    async def finish_queued(self, task: TaskRecord) -> None:
        """Cancel a turn that has not started."""
        status: TerminalStatus = "cancelled"

        async def write(rows: Sequence[EventRecord]) -> bool:
            return await self._services.store.finish_turn(
                self._session.fence,
                task.turn_id,
                task.attempt,
                status=status,
                answer=None,
                error=None,
                usage=None,
                stop_reason=status,
                messages=[],
                events=rows,
                now_us=self._services.clock.now_us(),
            )

        terminal = Draft(TERMINAL, task.turn_id, {"status": status, "stop_reason": status})
        with self._giving_up_on_failure():
            await self._stream.commit([terminal], write)

    async def acquire(self, *, wait: bool) -> Permit:
        """The session's permit, or (with `wait`) a place in the queue for it."""
        session = self._session
        if session.permit == "held":
            return Permit(granted=True)
        permit = await self._directory.acquire(session.session_id, session.user_id, self._actor, wait=wait)
        session.permit = "held" if permit.granted else "waiting" if permit.waiting else "none"
        return permit

    async def _load_history(self) -> list[dict[str, Any]]:
        if self._history is None:
            records = await self._services.store.load_messages(
                self._session.session_id,
                limit=self._services.settings.sessions.max_history_messages,
            )
            self._history = [decode_json(record.body) for record in records]
        return self._history

    def _task_record(self, command: Submit, status: str) -> TaskRecord:
        now_us = self._services.clock.now_us()
        request = {**msgspec.to_builtins(command), "after": self._stream.latest}
        running = status == "running"
        return TaskRecord(
            turn_id=command.turn_id,
            session_id=command.session_id,
            user_id=command.user_id,
            status="running" if running else "queued",
            attempt=1 if running else 0,
            request=encode_json(request),
            idempotency_key=command.idempotency_key,
            created_us=now_us,
            started_us=now_us if running else None,
        )

    def _message(self, turn_id: TurnId, body: dict[str, Any]) -> MessageRecord:
        return MessageRecord(
            session_id=self._session.session_id,
            position=self._session.next_position,
            turn_id=turn_id,
            round=0,
            role=body["role"],
            body=encode_json(body),
            created_us=self._services.clock.now_us(),
        )

    @contextlib.contextmanager
    def _giving_up_on_failure(self) -> Iterator[None]:
        """A failed commit leaves unknown what was written: the next owner finds out."""
        try:
            yield
        except Exception as error:
            self._abandon(type(error).__name__)
            raise


def request_cursor(task: TaskRecord) -> int:
    """The event number before the turn's first."""
    return int(msgspec.json.decode(task.request).get("after", 0))
