"""The directory's permit side: answers actors, pushes grants, takes back what is idle, lost or was never claimed.

    actor ── PermitCalls ──► none free? ── ReturnPermits ──► every actor that holds some ──► idle sessions' permits
                               still none: refused, or a place in the queue; a release grants it and `Grant` tells

A session keeps its permit for a while when it has nothing to run (its next turn then needs no call); so before anybody
hears that there is none, the idle ones are called back, and for a while afterwards actors keep none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from actors.background import Background
from actors.clock import Clock
from actors.errors import WunderError
from actors.handles import CALL_TIMEOUT_S, Reach, ask, tell
from actors.logs import log
from actors.messages import Acquire, Grant, PermitCalls, RegisterActor, Release, ReturnPermits
from actors.permits import Holder, Permits
from actors.replies import Permit, PermitAnswers, Returned
from actors.settings import ActorSettings
from storage.records import SessionId
from storage.store import TaskStorage

_UNKNOWN_ACTOR = "?"
_GRANT_TIMEOUT_S = 10.0
_RECALL_TIMEOUT_S = 1.0
RECALL_PAUSE_S = 1.0
"""Recalled actors keep no idle permit for longer than this, so asking again sooner finds none."""


class PermitDesk:
    """Permits of the whole system, and who was told what. `watch(actor)` makes sure that an actor's end is noticed."""

    def __init__(
        self, settings: ActorSettings, clock: Clock, reach: Reach, background: Background, watch: Callable[[str], None]
    ) -> None:
        sessions, queue = settings.sessions, settings.agent_queue
        self.permits = Permits(
            max_active=sessions.max_active,
            max_active_per_user=sessions.max_active_per_user,
            max_waiting=queue.max_queued,
            max_waiting_per_user=queue.max_queued_per_user,
        )
        self.unclaimed: dict[SessionId, float] = {}
        self._clock = clock
        self._reach = reach
        self._background = background
        self._watch = watch
        self._recalling: asyncio.Task[None] | None = None
        self._recall_again_s = 0.0

    async def answer(self, command: PermitCalls) -> PermitAnswers:
        """Work the calls off in their order."""
        answers: list[Permit | None] = []
        for call in command.calls:
            if isinstance(call, Acquire):
                answers.append(await self._acquire(call))
            else:
                self._release(call)
                answers.append(None)
        self.grant()
        return PermitAnswers(permits=tuple(answers))

    def register(self, report: RegisterActor) -> None:
        """What an actor says that it holds and waits for."""
        for session_id, user_id in report.held:
            self.permits.hold(session_id, Holder(user_id, report.actor))
        for session_id, user_id in report.waiting:
            if session_id not in self.permits.held:
                self.permits.wait(session_id, Holder(user_id, report.actor))
        self._reclaim(report)

    def actor_lost(self, actor: str) -> None:
        """All that it held and waited for is free."""
        held, waiting = self.permits.of_actor(actor)
        for session_id in (*held, *waiting):
            self._drop(session_id, actor)

    def grant(self) -> None:
        """Give what is free to who waits longest."""
        for session_id, holder in self.permits.grantable():
            self._background.start(self._tell_granted(session_id, holder.actor), "grant")

    async def count_running(self, store: TaskStorage) -> None:
        """After a restart: running turns of actors that could not report hold a permit too."""
        for _, session_id, user_id, _ in await store.running_tasks():
            if session_id not in self.permits.held:
                self.permits.hold(session_id, Holder(user_id, _UNKNOWN_ACTOR))

    async def keep(self, store: TaskStorage) -> None:
        """Upkeep: call idle permits back while somebody waits; settle what nobody has taken over."""
        if self.permits.waiters:
            await self._recall()
        unknown, _ = self.permits.of_actor(_UNKNOWN_ACTOR)
        if not unknown:
            return
        running = {session_id for _, session_id, _, _ in await store.running_tasks()}
        for session_id in unknown:
            if session_id not in running:
                self.permits.release(session_id, _UNKNOWN_ACTOR)
        self.grant()

    async def _acquire(self, command: Acquire) -> Permit:
        holder = Holder(command.user_id, command.actor)
        self.unclaimed.pop(command.session_id, None)
        self._watch(command.actor)
        if self.permits.acquire(command.session_id, holder):
            return Permit(granted=True)
        await self._recall()
        if self.permits.acquire(command.session_id, holder):
            return Permit(granted=True)
        reason = self.permits.refusal(command.user_id)
        position = self.permits.wait(command.session_id, holder) if command.wait else None
        if position is None:
            return Permit(granted=False, reason=reason if not command.wait else "queue_full")
        return Permit(granted=False, waiting=True, position=position, reason=reason)

    def _release(self, command: Release) -> None:
        """Also a permit that was rebuilt from the database before its actor could report it."""
        self._drop(command.session_id, command.actor)
        self.permits.release(command.session_id, _UNKNOWN_ACTOR)

    def _drop(self, session_id: SessionId, actor: str) -> None:
        self.unclaimed.pop(session_id, None)
        self.permits.leave(session_id, actor)
        self.permits.release(session_id, actor)

    async def _recall(self) -> None:
        """Have idle sessions give their permits back; those who come meanwhile wait for the same recall."""
        if self._recalling is None or self._recalling.done():
            if self._clock.monotonic_s() < self._recall_again_s:
                return
            self._recalling = asyncio.create_task(self._recall_once(), name="recall-permits")
        await asyncio.shield(self._recalling)

    async def _recall_once(self) -> None:
        before = self.permits.clock
        actors = {holder.actor for holder in self.permits.held.values()} - {_UNKNOWN_ACTOR}

        async def recall(actor: str) -> None:
            with contextlib.suppress(WunderError):
                returned = await ask(self._reach.actor(actor), ReturnPermits(), Returned, timeout_s=_RECALL_TIMEOUT_S)
                for session_id in returned.session_ids:
                    self.permits.returned(session_id, actor, before)

        await asyncio.gather(*(recall(actor) for actor in actors))
        self._recall_again_s = self._clock.monotonic_s() + RECALL_PAUSE_S
        self.grant()

    def _reclaim(self, report: RegisterActor) -> None:
        """Give back what the actor does not know of for longer than a call can be under way: its release was lost."""
        now_s = self._clock.monotonic_s()
        claimed = {session_id for session_id, _ in (*report.held, *report.waiting)}
        held, waiting = self.permits.of_actor(report.actor)
        for session_id in (*held, *waiting):
            if session_id in claimed:
                self.unclaimed.pop(session_id, None)
            elif now_s - self.unclaimed.setdefault(session_id, now_s) > CALL_TIMEOUT_S:
                log.warning("permit_reclaimed", session=session_id, actor=report.actor)
                self._drop(session_id, report.actor)

    async def _tell_granted(self, session_id: SessionId, actor: str) -> None:
        try:
            await tell(self._reach.actor(actor), Grant(session_id=session_id), timeout_s=_GRANT_TIMEOUT_S)
        except WunderError as error:
            log.warning("grant_failed", actor=actor, message=error.message)
            self.permits.release(session_id, actor)
            self.grant()
