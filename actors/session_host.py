"""The plain object inside a `SessionActor`: hosts sessions, renews its lease, and speaks to gateways over lines.

lease: every lease_renew_s ──► renew_owner ──► ok
                                     └─ lapsed, or no answer for lease_stop_s: give every session up,
                                        and come back as a new owner
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from actors.background import Background
from actors.errors import ServiceUnavailable, StaleEpoch, WunderError
from actors.handles import DirectoryHandle, Reach
from actors.lines import LineSet
from actors.logs import log
from actors.loop import Loop
from actors.messages import (
    CancelTurn,
    Describe,
    Description,
    Done,
    Drain,
    DropSession,
    Follow,
    Grant,
    OpenSession,
    ReadBuffer,
    RegisterActor,
    Reply,
    Report,
    Submit,
    Unfollow,
    decode_command,
    encode,
    to_failed,
)
from actors.session import new_session
from actors.session_runner import SessionRunner
from actors.turn_runner import Services
from storage.records import OwnerId, SessionId
from storage.stream_event_writer import StreamEventWriter

_MAINTENANCE_S = 1.0
_DROPPED_OWNER = OwnerId("")


class SessionHost:
    """Sessions of one process under one owner id."""

    def __init__(
        self, services: Services, directory: DirectoryHandle, reach: Reach, *, actor: str, node_id: str
    ) -> None:
        self._services = services
        self._directory = directory
        self._reach = reach
        self._actor = actor
        self._node_id = node_id
        self._settings = services.settings.sessions
        self._owner_id = _DROPPED_OWNER
        self._renewed_s = 0.0
        self._runners: dict[SessionId, SessionRunner] = {}
        self._opening: dict[SessionId, asyncio.Future[SessionRunner]] = {}
        self._leaving: dict[SessionId, asyncio.Task[None]] = {}
        self._background = Background()
        self._draining = False
        self._stale_commits = 0
        self._leases_lost = 0
        self.writer = StreamEventWriter(
            services.store,
            self._settings.event_writer,
            services.clock.monotonic_s,
            on_stored=self._on_stored,
            on_stale=self._on_stale,
        )
        self._lines = LineSet(
            actor,
            reach,
            lambda: self._owner_id,
            interval_s=self._settings.line_interval_ms / 1000,
            max_bytes=self._settings.line_max_bytes,
            on_lost=self._line_lost,
        )
        self._lease = Loop("lease", self._renew, interval_s=self._settings.lease_renew_s, jitter=0.1, max_backoff_s=1.0)
        self._maintenance = Loop("session-maintenance", self._maintain, interval_s=_MAINTENANCE_S)
        self._watch = Loop("lease-watch", self._stop_without_lease, interval_s=0.5, jitter=0.0)

    async def start(self) -> None:
        """Open the store, take a lease, and tell the directory."""
        await self._services.store.open()
        await self._register()
        self.writer.start()
        for loop in (self._lease, self._maintenance, self._watch):
            loop.start()

    async def stop(self) -> None:
        """Give everything up cleanly."""
        for loop in (self._maintenance, self._watch):
            await loop.stop()
        for session_id in list(self._runners):
            with contextlib.suppress(WunderError):
                await self._leave(session_id)
        await self.writer.stop()
        await self._lines.stop(flush=True)
        await self._lease.stop()
        await self._background.stop()
        with contextlib.suppress(WunderError):
            await self._services.store.expire_owner(self._owner_id)
        await self._services.models.close()
        await self._services.tools.close()
        await self._services.store.close()

    async def crash(self) -> None:
        """End as a killed process would: nothing is written, nobody is told (a fault point for tests)."""
        for loop in (self._maintenance, self._watch, self._lease):
            await loop.stop()
        self.writer.crash()
        await self._lines.stop(flush=False)
        for runner in list(self._runners.values()):
            runner.crash()
        await self._background.stop()
        await self._services.models.close()
        await self._services.store.close()

    async def handle(self, data: bytes) -> bytes:
        """One command in, one reply out; errors travel as replies."""
        try:
            return encode(await self._dispatch(data))
        except WunderError as error:
            return encode(to_failed(error))

    async def _dispatch(self, data: bytes) -> Reply:
        command = decode_command(data)
        match command:
            case Submit():
                return await self._submit(command)
            case CancelTurn():
                runner = await self._runner(command.session_id)
                return await runner.cancel(command.user_id, command.turn_id)
            case Follow():
                runner = await self._runner(command.session_id)
                return runner.follow(command.user_id, self._lines.to(command.gateway), command.gateway, command.number)
            case Unfollow():
                for session_id in command.session_ids:
                    if (found := self._runners.get(session_id)) is not None:
                        found.unfollow(command.gateway, command.number)
                return Done()
            case ReadBuffer():
                return (await self._runner(command.session_id)).read(command.after, command.max_bytes)
            case OpenSession():
                await self._runner(command.session_id)
                return Done()
            case DropSession():
                if (found := self._runners.get(command.session_id)) is not None:
                    found.abandon("deleted")
                return Done()
            case Grant():
                await self._grant(command.session_id)
                return Done()
            case Drain():
                await self._drain(command.grace_s)
                return Done()
            case Report():
                await self._report()
                return Done()
            case Describe():
                return self._describe()
            case _:
                raise WunderError(f"a session actor does not take {type(command).__name__}")

    # -- sessions ------------------------------------------------------------------------------------------------

    async def _submit(self, command: Submit) -> Reply:
        runner = await self._runner(command.session_id, create=command if command.create else None)
        runner.authorize(command.user_id)
        if command.gateway is not None:
            runner.follow(command.user_id, self._lines.to(command.gateway), command.gateway, command.number)
        return await runner.submit(command)

    async def _runner(self, session_id: SessionId, *, create: Submit | None = None) -> SessionRunner:
        """The open session; opened (once, however many ask) if it is not."""
        while True:
            opening = self._opening.get(session_id)
            if opening is not None:
                return await asyncio.shield(opening)
            runner = self._runners.get(session_id)
            if runner is not None:
                return runner
            if session_id in self._leaving:
                await asyncio.wait([self._leaving[session_id]])
                continue
            return await self._open_once(session_id, create)

    async def _open_once(self, session_id: SessionId, create: Submit | None) -> SessionRunner:
        future: asyncio.Future[SessionRunner] = asyncio.get_running_loop().create_future()
        self._opening[session_id] = future
        try:
            runner = await self._open(session_id, create)
        except BaseException as error:
            future.set_exception(error if isinstance(error, WunderError) else ServiceUnavailable("opening was cut off"))
            future.exception()
            raise
        finally:
            del self._opening[session_id]
        future.set_result(runner)
        self._background.start(runner.poke(), f"go-on-{session_id}")
        return runner

    async def _open(self, session_id: SessionId, create: Submit | None) -> SessionRunner:
        if self._draining or self._owner_id == _DROPPED_OWNER:
            raise ServiceUnavailable("this session actor takes no sessions now", retry_after_s=0.5)
        store, now_us = self._services.store, self._services.clock.now_us()
        if create is not None:
            await store.create_session(new_session(create, now_us))
        owner_id = self._owner_id
        opened = await store.open_session(session_id, owner_id, seq_block=self._settings.seq_block, now_us=now_us)
        if owner_id != self._owner_id:
            raise ServiceUnavailable("the lease was lost while opening", retry_after_s=0.5)
        runner = SessionRunner(
            self._services,
            opened,
            self.writer,
            self._directory,
            actor=self._actor,
            on_abandoned=self._on_abandoned,
        )
        self._runners[session_id] = runner
        try:
            await runner.begin()
        except WunderError:
            runner.abandon("begin_failed")
            raise
        return runner

    async def _leave(self, session_id: SessionId, *, unless_busy: bool = False) -> None:
        runner = self._runners.pop(session_id, None)
        if runner is None:
            return
        task = asyncio.create_task(self._leave_once(runner, unless_busy), name=f"leave-{session_id}")
        self._leaving[session_id] = task
        try:
            await task
        finally:
            del self._leaving[session_id]

    async def _leave_once(self, runner: SessionRunner, unless_busy: bool) -> None:
        try:
            if not await runner.leave(unless_busy=unless_busy):
                self._runners[runner.session.session_id] = runner
        except WunderError as error:
            runner.abandon(type(error).__name__)

    async def _grant(self, session_id: SessionId) -> None:
        runner = self._runners.get(session_id)
        if runner is None:
            await self._directory.release(session_id, self._actor)
        else:
            self._background.start(runner.grant(), f"grant-{session_id}")

    def _on_abandoned(self, session_id: SessionId, reason: str) -> None:
        self._stale_commits += reason == StaleEpoch.__name__
        if self._runners.pop(session_id, None) is not None:
            self._background.start(self._tell_abandoned(session_id), f"abandoned-{session_id}")

    async def _tell_abandoned(self, session_id: SessionId) -> None:
        with contextlib.suppress(WunderError):
            await self._directory.release(session_id, self._actor)
            await self._directory.passivated(self._actor, (session_id,))

    def _on_stored(self, session_id: SessionId, seq: int) -> None:
        if (runner := self._runners.get(session_id)) is not None:
            runner.stream.buffer.mark_stored(seq)

    def _on_stale(self, session_id: SessionId, epoch: int) -> None:
        runner = self._runners.get(session_id)
        if runner is not None and runner.session.fence.epoch == epoch:
            runner.abandon("StaleEpoch")

    def _line_lost(self, gateway: str, sessions: set[SessionId]) -> None:
        log.warning("line_lost", gateway=gateway)
        for session_id in sessions:
            if (runner := self._runners.get(session_id)) is not None:
                runner.unfollow(gateway)

    # -- lease and upkeep ----------------------------------------------------------------------------------------

    async def _register(self) -> None:
        clock = self._services.clock
        owner_id = OwnerId(clock.new_id("own"))
        started_s = clock.monotonic_s()
        await self._services.store.register_owner(owner_id, self._node_id, lease_s=self._settings.lease_s)
        self._owner_id, self._renewed_s = owner_id, started_s
        await self._report()

    async def _report(self) -> None:
        """Tell the directory who is here and what is held; it may have forgotten everything."""
        sessions = [(s, r.session) for s, r in self._runners.items()]
        await self._directory.register_actor(
            RegisterActor(
                actor=self._actor,
                node_id=self._node_id,
                owner_id=self._owner_id,
                sessions=tuple(s for s, _ in sessions),
                held=tuple((s, x.user_id) for s, x in sessions if x.permit == "held"),
                waiting=tuple((s, x.user_id) for s, x in sessions if x.permit == "waiting"),
            )
        )

    async def _renew(self) -> None:
        if self._owner_id == _DROPPED_OWNER:
            await self._register()
            return
        clock, owner_id = self._services.clock, self._owner_id
        started_s = clock.monotonic_s()
        renewed = await self._services.store.renew_owner(owner_id, lease_s=self._settings.lease_s)
        if owner_id != self._owner_id:
            return  # given up while the database was silent
        if renewed:
            self._renewed_s = started_s
            with contextlib.suppress(WunderError):
                await self._report()
        else:
            self._lose("lapsed")
            self._lease.wake()

    async def _stop_without_lease(self) -> None:
        silent_s = self._services.clock.monotonic_s() - self._renewed_s
        if self._owner_id != _DROPPED_OWNER and silent_s > self._settings.lease_stop_s:
            self._lose("no_renewal")
            self._lease.wake()

    def _lose(self, reason: str) -> None:
        log.error("lease_lost", actor=self._actor, reason=reason, sessions=len(self._runners))
        self._leases_lost += 1
        lost, self._owner_id = self._owner_id, _DROPPED_OWNER
        for runner in list(self._runners.values()):
            runner.abandon(f"lease_{reason}")
        self._background.start(self._end_lease(lost), "end-lease")

    async def _end_lease(self, owner_id: OwnerId) -> None:
        """We write nothing under it any more, so others need not wait for it to lapse."""
        with contextlib.suppress(WunderError):
            await self._services.store.expire_owner(owner_id)

    async def _maintain(self) -> None:
        now_s = self._services.clock.monotonic_s()
        for session_id, runner in list(self._runners.items()):
            if self._runners.get(session_id) is not runner:
                continue
            if runner.idle and now_s - runner.touched_s > self._settings.idle_s:
                await self._leave(session_id, unless_busy=True)
                with contextlib.suppress(WunderError):
                    await self._directory.passivated(self._actor, (session_id,))
            elif runner.session.permit != "waiting":
                await runner.poke()

    async def _drain(self, grace_s: float) -> None:
        self._draining = True
        runners = list(self._runners.values())
        if runners:
            drains = [asyncio.create_task(r.drain(), name="drain") for r in runners]
            _, pending = await asyncio.wait(drains, timeout=grace_s)
            for task in pending:
                task.cancel()
        for runner in runners:
            if runner.session.running is not None:
                # It is resumed by the session's next owner from its last committed round.
                runner.abandon("drain_grace_over")
            elif runner.session.session_id in self._runners:
                await self._leave(runner.session.session_id)

    def _describe(self) -> Description:
        runners = self._runners.values()
        counts = self.writer.counts
        return Description(
            gauges={
                "sessions_open": len(self._runners),
                "turns_running": sum(r.session.running is not None for r in runners),
                "turns_queued": sum(len(r.session.queue) for r in runners),
                "line_depth": self._lines.depth,
                "line_calls": self._lines.calls,
                "event_writer_depth": self.writer.depth,
                "event_writer_age_seconds": self.writer.age_s(),
                "event_writer_rows": counts.rows,
                "event_writer_events": counts.events,
                "event_writer_dropped": counts.dropped,
                "event_writer_failures": counts.failures,
                "stale_writes_refused": counts.stale + self._stale_commits,
                "leases_lost": self._leases_lost,
            },
            info={
                "pid": os.getpid(),
                "actor": self._actor,
                "node_id": self._node_id,
                "owner_id": self._owner_id,
                "statements": dict(self._services.store.statements()),
            },
        )
