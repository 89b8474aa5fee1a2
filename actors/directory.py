"""The plain object inside the `Directory`: which actor owns which session, and the permits.

It keeps nothing that it cannot learn again: after a restart every session actor reports what it hosts and holds, and
the database names the turns of actors that cannot. Until then nobody gets a permit, so the limits stay exact. It never
decides who may write: that is the epoch in the database. A wrong location costs its asker one retry.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import msgspec

from actors.background import Background
from actors.clock import Clock
from actors.errors import ServiceUnavailable, WunderError
from actors.handles import CALL_TIMEOUT_S, Reach, tell
from actors.logs import log
from actors.loop import Loop
from actors.messages import (
    Acquire,
    Describe,
    Description,
    Done,
    Grant,
    Locate,
    Location,
    Passivated,
    Permit,
    RegisterActor,
    RegisterGateway,
    Release,
    Reply,
    Report,
    Sweep,
    TokenEnded,
    decode_command,
    encode,
    to_failed,
)
from actors.permits import Holder, Permits
from actors.placement import ActorInfo, Node, Placement
from actors.settings import ActorSettings
from storage.records import OwnerId, SessionId
from storage.store import AsyncStorageBackend

JANITOR = "janitor"
_UNKNOWN_ACTOR = "?"
_REBUILD_REPORT_S = 2.0
_REBUILD_PAUSE_S = 0.5
_START_TIMEOUT_S = 30.0
_START_RETRY_S = 0.2


class Launcher(Protocol):
    """Starts session actors and knows which there are."""

    async def nodes(self) -> list[Node]: ...
    async def start_actor(self, node_id: str) -> str:
        """Start a session actor on a node and return its name once it has registered."""

    async def actors(self) -> list[str]:
        """The names of the session actors that exist."""


class GatewayInfo(msgspec.Struct, frozen=True):
    """A gateway that can be told things."""

    node_id: str
    address: str


class Directory:
    """Locations, permits, and the number of session actors."""

    def __init__(
        self,
        settings: ActorSettings,
        store: AsyncStorageBackend,
        clock: Clock,
        reach: Reach,
        launcher: Launcher,
    ) -> None:
        sessions = settings.sessions
        self._settings = settings
        self._store = store
        self._clock = clock
        self._reach = reach
        self._launcher = launcher
        self._permits = Permits(
            max_active=sessions.max_active,
            max_active_per_user=sessions.max_active_per_user,
            max_waiting=settings.agent_queue.max_queued,
            max_waiting_per_user=settings.agent_queue.max_queued_per_user,
        )
        self._placement = Placement(
            budget=sessions.max_actors_per_node, spare=sessions.spare_actors, monotonic_s=clock.monotonic_s
        )
        self._gateways: dict[str, GatewayInfo] = {}
        self._dead_owners: set[OwnerId] = set()
        self._watched: set[str] = set()
        self._unclaimed: dict[SessionId, float] = {}
        self._ready = asyncio.Event()
        self._changed = asyncio.Condition()
        self._choosing = 0
        self._background = Background()
        self._upkeep = Loop("directory-upkeep", self._keep, interval_s=2.0)

    async def start(self) -> None:
        await self._store.open()
        self._placement.nodes = {node.node_id: node for node in await self._launcher.nodes()}
        self._background.start(self._rebuild(), "rebuild")

    async def stop(self) -> None:
        await self._upkeep.stop()
        await self._background.stop()
        await self._store.close()

    async def handle(self, data: bytes) -> bytes:
        """One command in, one reply out; errors travel as replies."""
        try:
            return encode(await self._dispatch(data))
        except WunderError as error:
            return encode(to_failed(error))

    async def _dispatch(self, data: bytes) -> Reply:
        command = decode_command(data)
        match command:
            case RegisterActor():
                await self._register_actor(command)
            case RegisterGateway():
                self._register_gateway(command)
            case Locate():
                await self._until_ready()
                return Location(actor=await self._locate(command))
            case Acquire():
                await self._until_ready()
                return self._acquire(command)
            case Release():
                self._release(command)
                self._grant()
            case Passivated():
                for session_id in command.session_ids:
                    self._placement.forget(session_id, command.actor)
            case TokenEnded():
                for gateway in list(self._gateways):
                    self._background.start(self._tell(gateway, command), "token-ended")
            case Describe():
                return self._describe()
            case _:
                raise WunderError(f"the directory does not take {type(command).__name__}")
        return Done()

    # -- locations -----------------------------------------------------------------------------------------------

    async def _locate(self, command: Locate) -> str:
        placement, session_id = self._placement, command.session_id
        if command.owner_hint is not None:
            hinted = placement.by_owner(command.owner_hint)
            if hinted is not None:
                placement.assign(session_id, hinted)
                return hinted.name
        current = placement.location(session_id)
        if current is not None and command.orphaned:
            # Its lease has lapsed and it has not told us: it may be hung. It gets sessions again when it reports.
            current.suspect = True
        if current is not None and current.name != command.avoid and not current.suspect:
            return current.name
        chosen = await self._choose(command.avoid)
        placement.assign(session_id, chosen)
        self._start_wanted()
        return chosen.name

    async def _choose(self, avoid: str | None) -> ActorInfo:
        """An actor for a session: an empty one while the budget allows, then the least loaded."""
        self._choosing += 1
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while True:
                    chosen = self._placement.choose(avoid)
                    if chosen is not None:
                        return chosen
                    self._start_wanted()
                    async with self._changed:
                        await self._changed.wait()
        except TimeoutError:
            raise ServiceUnavailable("no session actor is ready", retry_after_s=2.0) from None
        finally:
            self._choosing -= 1

    def _start_wanted(self) -> None:
        for node_id in self._placement.wanted(demand=self._choosing):
            self._placement.starting[node_id] = self._placement.starting.get(node_id, 0) + 1
            self._background.start(self._start_actor(node_id), f"start-actor-{node_id}")

    async def _start_actor(self, node_id: str) -> None:
        try:
            await self._launcher.start_actor(node_id)
        except WunderError as error:
            log.warning("actor_start_failed", node=node_id, message=error.message)
            await asyncio.sleep(_START_RETRY_S)
        finally:
            self._placement.starting[node_id] -= 1
            await self._notify()

    async def _register_actor(self, command: RegisterActor) -> None:
        new, former = self._placement.register(command)
        if former is not None:
            # The same process came back under a new owner id: its old sessions are gone from it.
            self._actor_lost(command.actor)
        for session_id, user_id in command.held:
            self._permits.hold(session_id, Holder(user_id, command.actor))
        for session_id, user_id in command.waiting:
            if session_id not in self._permits.held:
                self._permits.wait(session_id, Holder(user_id, command.actor))
        self._reclaim(command)
        if new:
            log.info("actor_registered", actor=command.actor, node=command.node_id)
        self._watch(command.actor)
        await self._notify()
        if self._ready.is_set():
            self._grant()

    def _watch(self, actor: str) -> None:
        if actor not in self._watched:
            self._watched.add(actor)
            self._background.start(self._watch_actor(actor), f"watch-{actor}")

    async def _watch_actor(self, actor: str) -> None:
        try:
            await self._reach.gone(actor)
        finally:
            self._watched.discard(actor)
        info = self._placement.remove(actor)
        log.warning("actor_gone", actor=actor, sessions=len(info.sessions) if info else 0)
        if info is not None:
            self._dead_owners.add(info.owner_id)
        self._actor_lost(actor)
        await self._bury()
        self._start_wanted()
        self._grant()

    def _actor_lost(self, actor: str) -> None:
        held, waiting = self._permits.of_actor(actor)
        for session_id in (*held, *waiting):
            self._drop(session_id, actor)

    async def _bury(self) -> None:
        """End the leases of owners that are known to be dead, so that their sessions can be opened at once."""
        for owner_id in list(self._dead_owners):
            try:
                await self._store.expire_owner(owner_id)
            except WunderError:
                return
            self._dead_owners.discard(owner_id)
            with contextlib.suppress(WunderError):
                await tell(self._reach.actor(JANITOR), Sweep(), timeout_s=5.0)

    # -- permits -------------------------------------------------------------------------------------------------

    def _acquire(self, command: Acquire) -> Permit:
        holder = Holder(command.user_id, command.actor)
        self._unclaimed.pop(command.session_id, None)
        self._watch(command.actor)
        if self._permits.acquire(command.session_id, holder):
            return Permit(granted=True)
        reason = self._permits.refusal(command.user_id)
        position = self._permits.wait(command.session_id, holder) if command.wait else None
        if position is None:
            return Permit(granted=False, reason=reason if not command.wait else "queue_full")
        return Permit(granted=False, waiting=True, position=position, reason=reason)

    def _release(self, command: Release) -> None:
        """Also a permit that was rebuilt from the database before its actor could report it."""
        self._drop(command.session_id, command.actor)
        self._permits.release(command.session_id, _UNKNOWN_ACTOR)

    def _drop(self, session_id: SessionId, actor: str) -> None:
        self._unclaimed.pop(session_id, None)
        self._permits.leave(session_id)
        self._permits.release(session_id, actor)

    def _reclaim(self, report: RegisterActor) -> None:
        """Give back what the actor does not know of for longer than a call can be under way: its release was lost."""
        now_s = self._clock.monotonic_s()
        claimed = {session_id for session_id, _ in (*report.held, *report.waiting)}
        held, waiting = self._permits.of_actor(report.actor)
        for session_id in (*held, *waiting):
            if session_id in claimed:
                self._unclaimed.pop(session_id, None)
            elif now_s - self._unclaimed.setdefault(session_id, now_s) > CALL_TIMEOUT_S:
                log.warning("permit_reclaimed", session=session_id, actor=report.actor)
                self._drop(session_id, report.actor)

    def _grant(self) -> None:
        for session_id, holder in self._permits.grantable():
            self._background.start(self._tell(holder.actor, Grant(session_id=session_id)), "grant")

    async def _tell(self, actor: str, command: Grant | TokenEnded) -> None:
        try:
            await tell(self._reach.actor(actor), command, timeout_s=10.0)
        except WunderError as error:
            log.warning("tell_failed", actor=actor, message=error.message)
            if isinstance(command, Grant):
                self._permits.release(command.session_id, actor)
                self._grant()

    # -- life ----------------------------------------------------------------------------------------------------

    async def _rebuild(self) -> None:
        """Learn everything again, then serve; until it has worked there is nothing to serve with."""
        while not self._ready.is_set():
            try:
                await self._learn()
                self._ready.set()
            except Exception as error:
                log.exception("rebuild_failed", error)
                await asyncio.sleep(_REBUILD_PAUSE_S)
        log.info("directory_ready", actors=len(self._placement.actors), permits=len(self._permits.held))
        self._upkeep.start()
        self._start_wanted()
        self._grant()

    async def _learn(self) -> None:
        names = await self._launcher.actors()
        reports = [tell(self._reach.actor(n), Report(), timeout_s=_REBUILD_REPORT_S) for n in names]
        await asyncio.gather(*reports, return_exceptions=True)
        for _, session_id, user_id, _ in await self._store.running_tasks():
            if session_id not in self._permits.held:
                self._permits.hold(session_id, Holder(user_id, _UNKNOWN_ACTOR))

    async def _keep(self) -> None:
        self._placement.nodes = {node.node_id: node for node in await self._launcher.nodes()}
        await self._bury()
        self._start_wanted()
        await self._settle_unknown()

    async def _settle_unknown(self) -> None:
        """A permit that only the database named after a restart ends with its turn, if no actor has taken it over."""
        unknown, _ = self._permits.of_actor(_UNKNOWN_ACTOR)
        if not unknown:
            return
        running = {session_id for _, session_id, _, _ in await self._store.running_tasks()}
        for session_id in unknown:
            if session_id not in running:
                self._permits.release(session_id, _UNKNOWN_ACTOR)
        self._grant()

    def _register_gateway(self, command: RegisterGateway) -> None:
        if command.gateway not in self._gateways:
            self._background.start(self._watch_gateway(command.gateway), f"watch-{command.gateway}")
        self._gateways[command.gateway] = GatewayInfo(command.node_id, command.address)

    async def _watch_gateway(self, gateway: str) -> None:
        await self._reach.gone(gateway)
        self._gateways.pop(gateway, None)

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT_S / 2):
                await self._ready.wait()
        except TimeoutError:
            raise ServiceUnavailable("the directory is starting", retry_after_s=1.0) from None

    def _describe(self) -> Description:
        placement = self._placement
        return Description(
            gauges={
                "permits_held": len(self._permits.held),
                "permits_waiting": len(self._permits.waiting),
                "sessions_located": len(placement.locations),
                "session_actors": len(placement.actors),
            },
            info={
                "ready": self._ready.is_set(),
                "nodes": [msgspec.to_builtins(node) for node in placement.nodes.values()],
                "gateways": [{"name": name, **msgspec.to_builtins(info)} for name, info in self._gateways.items()],
                "actors": [
                    {"name": a.name, "node_id": a.node_id, "sessions": len(a.sessions), "suspect": a.suspect}
                    for a in placement.actors.values()
                ],
            },
        )

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
