"""The plain object inside a `SessionActor`: hosts sessions under its lease, and speaks to gateways over lines.

opened ──► runs turns, is followed ──► left (idle, drain): everything stored, unused numbers returned
                    └─ given up (a write whose outcome is unknown, a newer owner, a lost lease): nothing is written;
                       unless somebody else has it already, the database is told, and it is opened anew
"""

from __future__ import annotations

import asyncio
import contextlib

from actors.background import Background
from actors.directory import JANITOR
from actors.disowner import Disowner
from actors.errors import ServiceUnavailable, StaleEpoch, StorageUnavailable, WunderError
from actors.handles import DirectoryHandle, Reach, quietly, tell
from actors.host_description import describe_host
from actors.lines import LineSet
from actors.logs import log
from actors.loop import Loop
from actors.messages import (
    AnyCommand,
    CancelTurn,
    Describe,
    Drain,
    DropSession,
    Follow,
    Grant,
    OpenSession,
    PickUp,
    ReadBuffer,
    RegisterActor,
    Report,
    ReturnPermits,
    Submit,
    Sweep,
    Unfollow,
    decode_command,
    encode,
)
from actors.owner_lease import OwnerLease
from actors.replies import Description, Done, Reply, to_failed
from actors.session import new_session
from actors.session_runner import SessionRunner
from actors.session_upkeep import SessionUpkeep, drain, leave_all
from actors.turn_runner import FinishLine, Services
from storage.records import ClaimedTask, Fence, OpenedSession, OwnerId, SessionId
from storage.stream_event_writer import StreamEventWriter

_MAINTENANCE_S = 1.0
_DELETED = "deleted"


class SessionHost:
    """Sessions of one process under one owner id."""

    def __init__(
        self,
        services: Services,
        directory: DirectoryHandle,
        reach: Reach,
        *,
        actor: str,
        node_id: str,
        pool: bool = False,
    ) -> None:
        self._services = services
        self._directory = directory
        self._reach = reach
        self._actor = actor
        self._node_id = node_id
        self._pool = pool
        self._settings = services.settings.sessions
        self._runners: dict[SessionId, SessionRunner] = {}
        self._opening: dict[SessionId, asyncio.Future[SessionRunner]] = {}
        self._leaving: dict[SessionId, asyncio.Task[None]] = {}
        self._background = Background()
        self._draining = False
        self._stale_commits = 0
        self._reporting = Loop("report", self._report, interval_s=self._settings.lease_renew_s, max_backoff_s=1.0)
        self._lease = OwnerLease(
            services.store,
            services.clock,
            self._settings,
            node_id,
            on_taken=self._reporting.wake,
            on_lost=self._lease_lost,
        )
        self._disowner = Disowner(
            services.store, lambda: self._lease.owner_id, self._is_open, on_disowned=self._ask_for_sweep
        )
        self.writer = StreamEventWriter(
            services.store,
            self._settings.event_writer,
            services.clock.monotonic_s,
            on_stored=self._on_stored,
            on_stale=self._on_stale,
        )
        self._lines = self._new_lines()
        self._upkeep = SessionUpkeep(self._runners, self._settings, services.clock, self._passivate)
        self._maintenance = Loop("session-upkeep", self._upkeep.run_once, interval_s=_MAINTENANCE_S)

    def _new_lines(self) -> LineSet:
        return LineSet(
            self._actor,
            self._reach,
            lambda: self._lease.owner_id,
            interval_s=self._settings.line_interval_ms / 1000,
            max_bytes=self._settings.line_max_bytes,
            on_lost=self._line_lost,
        )

    async def start(self) -> None:
        """Open the store, take a lease, and tell the directory."""
        await self._services.store.open()
        await self._lease.take()
        await self._report()
        self.writer.start()
        for part in (self._lease, self._maintenance, self._reporting, self._disowner):
            part.start()

    async def stop(self) -> None:
        """Give everything up cleanly."""
        for part in (self._maintenance, self._reporting):
            await part.stop()
        await leave_all(list(self._runners), self._leave)
        await self.writer.stop()
        await self._lines.stop(flush=True)
        await self._disowner.stop()
        await self._lease.stop()
        await self._background.stop()
        await self._lease.end()
        for service in (self._services.children, self._services.models, self._services.tools, self._services.store):
            await service.close()

    async def crash(self) -> None:
        """End as a killed process would: nothing is written, nobody is told (a fault point for tests)."""
        for part in (self._maintenance, self._reporting, self._disowner, self._lease):
            await part.stop()
        self.writer.crash()
        await self._lines.stop(flush=False)
        for runner in list(self._runners.values()):
            runner.crash()
        await self._background.stop()
        for service in (self._services.children, self._services.models, self._services.store):
            await service.close()

    @property
    def owner_id(self) -> OwnerId:
        """Under which this process owns its sessions; empty while it has no lease."""
        return self._lease.owner_id

    async def handle(self, data: bytes) -> bytes:
        """One command in, one reply out; errors travel as replies."""
        try:
            return encode(await self.take(decode_command(data)))
        except WunderError as error:
            return encode(to_failed(error))

    async def take(self, command: AnyCommand) -> Reply:
        """Serve one command."""
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
            case PickUp():
                # A pool gives the session up when its task has ended: then the next one in line is for the pools.
                if not self._pool:
                    await (await self._runner(command.session_id)).turns.pick_up()
                return Done()
            case DropSession():
                if (found := self._runners.get(command.session_id)) is not None:
                    found.abandon(_DELETED)
                return Done()
            case Grant():
                await self._grant(command.session_id)
                return Done()
            case ReturnPermits():
                return self._upkeep.return_permits()
            case Drain():
                await self._drain(command.grace_s)
                return Done()
            case Report():
                await self._report()
                return Done()
            case Describe():
                return self.describe()
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
        if self._draining or self._pool or not self._lease.held:
            raise ServiceUnavailable("this session actor takes no sessions now", retry_after_s=0.5)
        store, now_us = self._services.store, self._services.clock.now_us()
        if create is not None:
            await store.create_session(new_session(create, now_us))
        owner_id = self._lease.owner_id
        try:
            opened = await store.open_session(session_id, owner_id, seq_block=self._settings.seq_block, now_us=now_us)
        except StorageUnavailable:
            self._disowner.add(session_id, None)
            raise
        if owner_id != self._lease.owner_id:
            raise ServiceUnavailable("the lease was lost while opening", retry_after_s=0.5)
        runner = self._runners[session_id] = self._new_runner(opened)
        try:
            await runner.begin()
        except WunderError:
            runner.abandon("begin_failed")
            raise
        return runner

    async def disown_unknown(self) -> None:
        """Give up what the database says is ours without our knowing: a claim whose answer was lost."""
        for fence in await self._services.store.sessions_of_owner(self._lease.owner_id):
            if not self._is_open(fence.session_id):
                self._disowner.add(fence.session_id, fence.epoch)

    async def run_claimed(self, claimed: ClaimedTask, line: FinishLine) -> None:
        """Own the session of a claimed task until the task has ended, or waits to be tried again."""
        session_id = claimed.task.session_id
        runner = self._runners[session_id] = self._new_runner(claimed.opened)
        try:
            await runner.run_claimed(claimed.task, line)
        except WunderError as error:
            runner.abandon(type(error).__name__)
        if self._runners.get(session_id) is runner:
            if runner.turns.left:
                del self._runners[session_id]
            else:
                await self._leave(session_id)

    def _new_runner(self, opened: OpenedSession) -> SessionRunner:
        return SessionRunner(
            self._services,
            opened,
            self.writer,
            self._directory,
            actor=self._actor,
            on_abandoned=self._on_abandoned,
        )

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

    def _on_abandoned(self, fence: Fence, reason: str) -> None:
        session_id = fence.session_id
        self._stale_commits += reason == StaleEpoch.__name__
        self._runners.pop(session_id, None)
        if reason != _DELETED and self._lease.held:
            self._disowner.add(session_id, fence.epoch)
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

    async def _report(self) -> None:
        """Tell the directory who is here and what is held; it may have forgotten everything."""
        if not self._lease.held:
            return
        sessions = [(s, r.session) for s, r in self._runners.items()]
        await self._directory.register_actor(
            RegisterActor(
                actor=self._actor,
                node_id=self._node_id,
                owner_id=self._lease.owner_id,
                pool=self._pool,
                sessions=() if self._pool else tuple(s for s, _ in sessions),
                held=tuple((s, x.user_id) for s, x in sessions if x.permit == "held"),
                waiting=tuple((s, x.user_id) for s, x in sessions if x.permit == "waiting"),
            )
        )

    def _lease_lost(self, reason: str) -> None:
        self._disowner.forget_all()
        for runner in list(self._runners.values()):
            runner.abandon(f"lease_{reason}")

    def _is_open(self, session_id: SessionId) -> bool:
        return session_id in self._runners or session_id in self._opening or session_id in self._leaving

    def _ask_for_sweep(self) -> None:
        self._background.start(quietly(tell(self._reach.actor(JANITOR), Sweep(), timeout_s=5.0)), "ask-for-sweep")

    async def _passivate(self, session_id: SessionId) -> None:
        await self._leave(session_id, unless_busy=True)
        await quietly(self._directory.passivated(self._actor, (session_id,)))

    async def _drain(self, grace_s: float) -> None:
        self._draining = True
        await drain(self._runners, grace_s, self._leave)

    def describe(self) -> Description:
        """What this process is doing, in numbers."""
        info = {"actor": self._actor, "node_id": self._node_id, "owner_id": self._lease.owner_id}
        gauges = {
            "line_depth": float(self._lines.depth),
            "line_calls": float(self._lines.calls),
            "stale_writes_refused": float(self.writer.counts.stale + self._stale_commits),
            "leases_lost": float(self._lease.lost),
        }
        return describe_host(self._runners, self.writer, self._services, gauges, info)
