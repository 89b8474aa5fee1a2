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
from actors.errors import Conflict, NotFound, ServiceUnavailable, WunderError
from actors.handles import Reach, ask, tell
from actors.logs import log
from actors.loop import Loop
from actors.messages import (
    Describe,
    DrainNode,
    Locate,
    Passivated,
    PermitCalls,
    RegisterActor,
    RegisterGateway,
    RegisterOutbox,
    Report,
    Sweep,
    TokenEnded,
    Wake,
    WakeOutboxes,
    WakePools,
    decode_command,
    encode,
)
from actors.outbox_desk import OutboxDesk
from actors.permit_desk import PermitDesk
from actors.placement import ActorInfo, Node, Placement
from actors.replies import Description, Done, Draining, Location, Reply, to_failed
from actors.settings import ActorSettings
from storage.records import OwnerId
from storage.store import AsyncStorageBackend

JANITOR = "janitor"
_REBUILD_REPORT_S = 2.0
_REBUILD_PAUSE_S = 0.5
_WAKE_TIMEOUT_S = 5.0
_START_TIMEOUT_S = 30.0
_OWN_ACTOR_WAIT_S = 3.0
"""How long a session waits for an actor of its own to start; then it shares one."""


class Launcher(Protocol):
    """Starts session actors and knows which there are."""

    async def nodes(self) -> list[Node]: ...
    async def start_actor(self, node_id: str) -> str:
        """Start a session actor on a node and return its name once it has registered."""

    async def actors(self) -> list[str]:
        """The names of the session actors that exist."""

    async def dashboard(self) -> str:
        """Where Ray's dashboard listens; empty without one."""

    async def ask_room(self, places: int) -> None:
        """Ask for nodes until so many session actors have room; nothing happens without an autoscaler."""


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
        self._placement = Placement(
            budget=sessions.max_actors_per_node, spare=sessions.spare_actors, monotonic_s=clock.monotonic_s
        )
        self._gateways: dict[str, GatewayInfo] = {}
        self._dead_owners: set[OwnerId] = set()
        self._watched: set[str] = set()
        self._waking: set[str] = set()
        self._draining: dict[str, float | None] = {}
        self._ready = asyncio.Event()
        self._changed = asyncio.Condition()
        self._choosing = 0
        self._stopped = False
        self._asked_places = 0
        self._dashboard = ""
        self._incarnation = clock.new_id("directory")
        self._background = Background()
        self.desk = PermitDesk(settings, clock, reach, self._background, self._watch)
        self.outboxes = OutboxDesk(reach, self._background, self._outbox_gone)
        self._upkeep = Loop("directory-upkeep", self._keep, interval_s=2.0)

    async def start(self) -> None:
        await self._store.open()
        self._placement.take_nodes(await self._launcher.nodes())
        self._dashboard = await self._launcher.dashboard()
        self._background.start(self._rebuild(), "rebuild")

    async def stop(self) -> None:
        """Start no actor any more, whoever still asks."""
        self._stopped = True
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
            case PermitCalls():
                await self._until_ready()
                return await self.desk.answer(command)
            case Passivated():
                for session_id in command.session_ids:
                    self._placement.forget(session_id, command.actor)
            case TokenEnded():
                for gateway in list(self._gateways):
                    self._background.start(self._tell(gateway, command), "token-ended")
            case WakePools():
                return self._wake_pools()
            case RegisterOutbox():
                self.outboxes.register(command)
            case WakeOutboxes():
                self.outboxes.wake()
            case DrainNode():
                self._drain_node(command)
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
            for share, patience_s in ((False, min(_OWN_ACTOR_WAIT_S, _START_TIMEOUT_S)), (True, _START_TIMEOUT_S)):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        return await self._choose_once(avoid, share)
            raise ServiceUnavailable("no session actor is ready", retry_after_s=2.0)
        finally:
            self._choosing -= 1

    async def _choose_once(self, avoid: str | None, share: bool) -> ActorInfo:
        while True:
            chosen = self._placement.choose(avoid, share=share)
            if chosen is not None:
                return chosen
            self._start_wanted()
            async with self._changed:
                await self._changed.wait()

    def _start_wanted(self) -> None:
        for node_id in () if self._stopped else self._placement.wanted(demand=self._choosing):
            self._placement.starting[node_id] = self._placement.starting.get(node_id, 0) + 1
            self._background.start(self._start_actor(node_id), f"start-actor-{node_id}")

    async def _start_actor(self, node_id: str) -> None:
        pause_s = None
        try:
            await self._launcher.start_actor(node_id)
        except WunderError as error:
            log.warning("actor_start_failed", node=node_id, message=error.message)
            pause_s = self._placement.start_failed(node_id)
        finally:
            self._placement.starting[node_id] -= 1
            await self._notify()
        if pause_s is not None:
            await asyncio.sleep(pause_s)
            await self._notify()

    async def _register_actor(self, command: RegisterActor) -> None:
        new, former = self._placement.register(command)
        if former is not None:
            # The same process came back under a new owner id: its old sessions are gone from it.
            self.desk.actor_lost(command.actor)
        self.desk.register(command)
        if new:
            log.info("actor_registered", actor=command.actor, node=command.node_id)
        self._watch(command.actor)
        await self._notify()
        if self._ready.is_set():
            self.desk.grant()

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
        self.desk.actor_lost(actor)
        await self._bury()
        self._start_wanted()
        self.desk.grant()

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

    async def _outbox_gone(self, owner_id: OwnerId) -> None:
        self._dead_owners.add(owner_id)
        await self._bury()

    def _wake_pools(self) -> Draining:
        """Wake every pool; how fast they were when they were woken before."""
        pools = self._placement.pools()
        for pool in pools:
            if pool not in self._waking:
                self._waking.add(pool)
                self._background.start(self._wake_pool(pool), f"wake-{pool}")
        self._draining = {pool: self._draining.get(pool) for pool in pools}
        known = [per_s for per_s in self._draining.values() if per_s is not None]
        return Draining(per_s=sum(known) if known else None)

    async def _wake_pool(self, pool: str) -> None:
        self._waking.discard(pool)  # who comes from here on is not sure to be seen by this call
        with contextlib.suppress(WunderError):
            answer = await ask(self._reach.actor(pool), Wake(), Draining, timeout_s=_WAKE_TIMEOUT_S)
            self._draining[pool] = answer.per_s

    async def _tell(self, gateway: str, command: TokenEnded) -> None:
        try:
            await tell(self._reach.actor(gateway), command, timeout_s=10.0)
        except WunderError as error:
            log.warning("tell_failed", gateway=gateway, message=error.message)

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
        log.info("directory_ready", actors=len(self._placement.actors), permits=len(self.desk.permits.held))
        self._upkeep.start()
        self._start_wanted()
        self.desk.grant()

    async def _learn(self) -> None:
        names = await self._launcher.actors()
        reports = [tell(self._reach.actor(n), Report(), timeout_s=_REBUILD_REPORT_S) for n in names]
        await asyncio.gather(*reports, return_exceptions=True)
        await self.desk.count_running(self._store)

    async def _keep(self) -> None:
        self._placement.take_nodes(await self._launcher.nodes())
        await self._bury()
        self._start_wanted()
        await self._ask_room()
        await self.desk.keep(self._store)

    async def _ask_room(self) -> None:
        """Only what has changed: the autoscaler keeps the last request."""
        places = self._placement.places_wanted(self._settings.sessions.sessions_per_actor)
        if places != self._asked_places and self._settings.sessions.actor_resource:
            await self._launcher.ask_room(places)
            self._asked_places = places

    def _drain_node(self, command: DrainNode) -> None:
        if command.node_id not in self._placement.known:
            raise NotFound(f"there is no node {command.node_id!r}")
        others = self._placement.nodes.keys() - {command.node_id}
        if not others and not command.undo:
            raise Conflict(f"{command.node_id} is the last node in use: nobody could take its sessions")
        self._placement.drain(command.node_id, undo=command.undo)
        log.info("node_undrained" if command.undo else "node_drained", node=command.node_id)
        self._start_wanted()

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
                "permits_held": len(self.desk.permits.held),
                "permits_waiting": self.desk.permits.waiters,
                "sessions_located": len(placement.locations),
                "session_actors": len(placement.actors) - len(placement.pools()),
                "pools": len(placement.pools()),
                "outboxes": len(self.outboxes.known),
            },
            info={
                "ready": self._ready.is_set(),
                "incarnation": self._incarnation,
                "dashboard": self._dashboard,
                "nodes": [
                    {**msgspec.to_builtins(node), "drained": node.node_id in placement.drained}
                    for node in placement.known.values()
                ],
                "gateways": [{"name": name, **msgspec.to_builtins(info)} for name, info in self._gateways.items()],
                "outboxes": [{"name": o.outbox, "node_id": o.node_id} for o in self.outboxes.known.values()],
                "actors": [
                    {
                        "name": a.name,
                        "node_id": a.node_id,
                        "sessions": len(a.sessions),
                        "suspect": a.suspect,
                        "pool": a.pool,
                    }
                    for a in placement.actors.values()
                ],
            },
        )

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
