"""One open session: takes commands, and is the session's lock.

Accepting, starting and cancelling happen on one event loop in the order they came. Everything durable goes through
`SessionStream.commit` under the session's fence; when a commit shows that another owner has the session, or the
database stays away, the runner gives the session up (`abandon`): whoever opens it next finds the truth in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from actors.errors import ServiceUnavailable, SessionNotFound, UserBusy, UserQuotaExceeded, WunderError
from actors.event_buffer import EventBuffer
from actors.events import VOLATILE_KINDS
from actors.handles import DirectoryHandle
from actors.lines import OutgoingLine
from actors.logs import log
from actors.messages import Submit
from actors.replies import Buffered, CancelReceipt, Following, Submitted
from actors.session import Enqueue, Numbers, Refuse, RunningTurn, Session
from actors.session_stream import Draft, SessionStream
from actors.task_request import request_cursor
from actors.turn_queue import TurnQueue
from actors.turn_runner import FinishLine, Services
from storage.queue_writer import FinishedTurn
from storage.records import EventRecord, Fence, MessageRecord, OpenedSession, TaskRecord, TurnId, UserId
from storage.stream_event_writer import StreamEventWriter
from storage.turn_writer import Completion

_CANCELLED = ("cancelled", "interrupted")


class SessionRunner:
    """One open session under one epoch."""

    def __init__(
        self,
        services: Services,
        opened: OpenedSession,
        writer: StreamEventWriter,
        directory: DirectoryHandle,
        *,
        actor: str,
        on_abandoned: Callable[[Fence, str], None],
    ) -> None:
        settings = services.settings.sessions
        self._services = services
        self._opened = opened
        self._on_abandoned = on_abandoned
        self.session = Session(opened, max_queued=settings.max_queued_per_session)
        numbers = Numbers(first=opened.first_seq, reserved=opened.session.reserved_seq, block=settings.seq_block)
        buffer = EventBuffer(
            base=opened.first_seq - 1,
            max_events=settings.buffer_events,
            max_bytes=settings.buffer_bytes,
        )
        self.stream = SessionStream(self.session.fence, numbers, buffer, writer, services.store, services.clock)
        self.turns = TurnQueue(
            services, opened, self.session, self.stream, directory, actor=actor, abandon=self.abandon
        )
        self._abandoned = False
        self._follows: dict[str, int] = {}
        self.touched_s = services.clock.monotonic_s()

    async def begin(self) -> None:
        """Announce what the last owner left undone: nobody may follow, and nothing may run, before that."""
        async with self.turns.lock:  # the upkeep finds this session already, and would go on with what waits
            await self._say_what_was_lost()

    async def _say_what_was_lost(self) -> None:
        opened = self._opened
        if opened.first_seq > opened.last_seq + 1 or opened.running is not None:
            turn_id = opened.running.turn_id if opened.running else TurnId("")
            data = {"to_event_id": await self._last_durable(), "reason": "owner_changed"}
            await self.stream.commit([Draft("rewind", turn_id, data)], self.stream.append)

    async def poke(self) -> None:
        """Go on with what waits, if nothing runs (after opening, or when the directory could not be asked)."""
        waits = self.session.busy or self.session.permit == "unsure"
        if waits and self.session.running is None and not self.turns.lock.locked():
            await self._advance()

    async def _advance(self) -> None:
        try:
            async with self.turns.lock:
                await self.turns.advance()
        except WunderError as error:
            log.warning("session_not_advanced", session=self.session.session_id, error=type(error).__name__)

    async def _last_durable(self) -> int:
        """The turn's last event that counts: what it announced before a commit that never came is taken back."""
        task = self._opened.running
        if task is None:
            return self._opened.last_seq
        after = last = request_cursor(task)
        while True:
            page = await self._services.store.read_events(
                self.session.session_id, after=after, limit=500, max_bytes=4_194_304
            )
            if not page:
                return last
            after = page[-1].seq
            durable = [e.seq for e in page if e.turn_id == task.turn_id and e.kind not in VOLATILE_KINDS]
            last = durable[-1] if durable else last

    @property
    def idle(self) -> bool:
        """Nothing to run and nobody listening."""
        quiet = not self.session.busy and self.session.permit == "none"
        return quiet and not self.stream.lines and not self.turns.lock.locked()

    async def leave(self, *, unless_busy: bool = False) -> bool:
        """Give the session up cleanly: everything stored, unused numbers returned. A running turn goes on elsewhere."""
        async with self.turns.lock:
            if unless_busy and (self.session.busy or self.stream.lines):
                return False
            if self._abandoned:
                return True
            self._abandoned = self.turns.stopped = True
            if self.turns.task is not None:
                # It must not number another event: the numbers above the last one are given back.
                self.turns.task.cancel()
                await asyncio.wait([self.turns.task])
            try:
                await self.stream.settle()
                now_us = self._services.clock.now_us()
                last_seq = self.stream.numbers.last
                await self._services.store.close_session(self.session.fence, last_seq=last_seq, now_us=now_us)
            except WunderError:
                self._abandoned = False  # given up instead
                raise
            self.stream.close()
            with contextlib.suppress(WunderError):
                await self.turns.release()
        return True

    async def drain(self) -> None:
        """Start no further turn; return when none runs."""
        self.turns.stopped = True
        if self.turns.task is not None:
            await asyncio.wait([self.turns.task])

    async def run_claimed(self, task: TaskRecord, line: FinishLine) -> None:
        """Run a task that a pool has claimed with this session; recording its end leaves the session."""

        async def finish(
            fence: Fence, end: Completion, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
        ) -> bool:
            turn = FinishedTurn(
                fence=fence, end=end, last_seq=events[-1].seq, messages=tuple(messages), events=tuple(events)
            )
            self.turns.left = await line.ask(turn)
            return self.turns.left

        await self.turns.run_claimed(task, finish, self._say_what_was_lost)
        if self.turns.left:
            self._abandoned = self.turns.stopped = True
            self.stream.close()

    def abandon(self, reason: str) -> None:
        """Stop at once and write nothing more; another owner has, or will have, the session."""
        if self._abandoned:
            return
        self._abandoned = self.turns.stopped = True
        log.warning("session_abandoned", session=self.session.session_id, reason=reason)
        self.stream.close()
        if self.turns.task is not None and self.turns.task is not asyncio.current_task():
            self.turns.task.cancel()
        self._on_abandoned(self.session.fence, reason)

    def crash(self) -> None:
        """Stop as a killed process would."""
        self._abandoned = self.turns.stopped = self.stream.closed = True
        self.stream.lines.clear()
        if self.turns.task is not None:
            self.turns.task.cancel()

    def authorize(self, user_id: UserId | None) -> None:
        """A session of somebody else does not exist."""
        if user_id is not None and user_id != self.session.user_id:
            raise SessionNotFound("there is no such session")

    async def submit(self, command: Submit) -> Submitted:
        """Accept a turn: when this returns it is durable."""
        self.authorize(command.user_id)
        self.touched_s = self._services.clock.monotonic_s()
        async with self.turns.lock:
            self._check_open()
            try:
                return await self._submit(command)
            except WunderError:
                if not self.session.busy and not self._abandoned:
                    with contextlib.suppress(WunderError):
                        await self.turns.advance()
                raise

    async def _submit(self, command: Submit) -> Submitted:
        turns = self.turns
        if command.again:
            accepted = await self._services.store.get_task(command.turn_id)
            if accepted is not None and accepted.user_id == command.user_id:
                return turns.duplicate(accepted)
        decision = self.session.on_submit(command.busy)
        if not isinstance(decision, Enqueue) and self.session.busy:
            # A repeated request gets its first answer even when the session is busy with it.
            earlier = await turns.earlier(command)
            if earlier is not None:
                return turns.duplicate(earlier)
        if isinstance(decision, Refuse):
            raise _refusal(decision)
        if isinstance(decision, Enqueue):
            return await turns.enqueue(command, decision)
        permit = await turns.acquire(wait=command.busy != "reject")
        if permit.granted:
            return await turns.start_new(command)
        reason = permit.reason or "service_limit"
        if permit.waiting:
            return await turns.enqueue(command, Enqueue(permit.position, reason))
        if command.busy == "reject":
            raise UserBusy("all permits are in use", detail={"reason": reason}, retry_after_s=1.0)
        raise UserQuotaExceeded("the queue is full", detail={"reason": reason}, retry_after_s=1.0)

    async def cancel(self, user_id: UserId | None, turn_id: TurnId | None) -> CancelReceipt:
        """Cancel a turn; the receipt is given once it is recorded, and then it is final."""
        self.authorize(user_id)
        running = self.session.running
        if running is not None and turn_id in (None, running.turn_id):
            return await self._cancel_running(running)
        async with self.turns.lock:
            self._check_open()
            wanted = turn_id or self.session.active_turn
            queued = self.session.find_queued(wanted)
            if queued is not None:
                self.session.queue.remove(queued)
                await self.turns.finish_queued(queued)
                await self.turns.advance()
                return CancelReceipt(cancelled=True, turn_id=wanted, status="cancelled")
            crashed = self.session.crashed
            if crashed is not None and crashed.turn_id == wanted:
                await self._services.store.request_cancel(crashed.turn_id)
                return CancelReceipt(cancelled=True, turn_id=wanted, status="cancelled")
            task = await self._services.store.get_task(wanted) if wanted else None
            if task is None or task.session_id != self.session.session_id:
                return CancelReceipt(cancelled=False, turn_id=None, status=None)
            if task.status == "queued":  # not in line yet: it waits for its time
                await self.turns.finish_queued(task)
                return CancelReceipt(cancelled=True, turn_id=wanted, status="cancelled")
        # Whoever repeats a cancel whose receipt was lost is told that it holds.
        return CancelReceipt(cancelled=task.status in _CANCELLED, turn_id=wanted, status=task.status)

    async def _cancel_running(self, running: RunningTurn) -> CancelReceipt:
        if not running.finishing:
            running.token.cancel("cancelled")
            reason = running.token.reason or "cancelled"
            task = await self._services.store.request_cancel(running.turn_id)
            if task is not None and task.status in ("succeeded", "failed", "dead"):
                # Another owner has finished it meanwhile.
                return CancelReceipt(cancelled=False, turn_id=running.turn_id, status=task.status)
            return CancelReceipt(cancelled=True, turn_id=running.turn_id, status=reason)
        # Its end is being recorded now: whichever it is, it is final.
        if self.turns.task is not None:
            await asyncio.wait([self.turns.task])
        if running.status == "running":
            raise ServiceUnavailable("the session is moving to another owner", retry_after_s=0.2)
        return CancelReceipt(cancelled=running.status in _CANCELLED, turn_id=running.turn_id, status=running.status)

    def follow(self, user_id: UserId | None, line: OutgoingLine, gateway: str, number: int = 0) -> Following:
        """From now on the session's events are on this line."""
        self.authorize(user_id)
        self._check_open()
        self.stream.lines[gateway] = line
        self._follows[gateway] = max(number, self._follows.get(gateway, 0))
        line.sessions.add(self.session.session_id)
        return Following(
            user_id=self.session.user_id,
            epoch=self.session.fence.epoch,
            latest=self.stream.latest,
            active_turn=self.session.active_turn,
            running=self.session.busy,
        )

    def unfollow(self, gateway: str, number: int | None = None) -> None:
        """Nobody listens on this line any more; one that is older than the gateway's newest follow is ignored."""
        if number is not None and number < self._follows.get(gateway, 0):
            return
        self._follows.pop(gateway, None)
        line = self.stream.lines.pop(gateway, None)
        if line is not None:
            line.sessions.discard(self.session.session_id)
        self.touched_s = self._services.clock.monotonic_s()

    def read(self, after: int, max_bytes: int) -> Buffered:
        """Events after a cursor, from memory."""
        events = self.stream.buffer.after(after, max_bytes)
        return Buffered(
            events=events or (),
            base=self.stream.buffer.base,
            latest=self.stream.latest,
            too_old=events is None,
        )

    async def grant(self) -> None:
        """The permit this session waited for may be here: the directory is asked, for the message may be old."""
        if self.session.permit != "held":
            self.session.permit = "unsure"
        await self._advance()

    def _check_open(self) -> None:
        if self.turns.stopped:
            raise ServiceUnavailable("the session is moving to another owner", retry_after_s=0.2)


def _refusal(decision: Refuse) -> WunderError:
    detail = {"reason": decision.reason}
    if decision.quota:
        return UserQuotaExceeded("the session's queue is full", detail=detail, retry_after_s=1.0)
    return UserBusy("the session is busy with another turn", detail=detail, retry_after_s=1.0)
