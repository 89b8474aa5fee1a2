"""Which session lives on which actor, and how many actors a node should have. Pure but for a monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from actors.messages import RegisterActor
from storage.records import OwnerId, SessionId

_RECENT_S = 20.0
"""A session that was placed this recently may not be open yet, so a report without it does not count."""

ACTORS_PER_CPU = 2
_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 60.0


class Node(msgspec.Struct, frozen=True):
    """A machine of the cluster; `places` for session actors, if it offers a resource for them."""

    node_id: str
    cpus: float
    address: str = ""
    places: int | None = None


class ActorInfo:
    """A session actor that has registered."""

    def __init__(self, name: str, node_id: str, owner_id: OwnerId, *, pool: bool = False) -> None:
        self.name = name
        self.node_id = node_id
        self.owner_id = owner_id
        self.sessions: dict[SessionId, float] = {}
        self.suspect = False
        self.pool = pool


class Placement:
    """`budget` actors per node (0: two per CPU), of which `spare` are kept empty while there is budget."""

    def __init__(self, *, budget: int, spare: int, monotonic_s: Callable[[], float]) -> None:
        self._budget = budget
        self._spare = spare
        self._monotonic_s = monotonic_s
        self.nodes: dict[str, Node] = {}
        self.known: dict[str, Node] = {}
        self.drained: set[str] = set()
        self.actors: dict[str, ActorInfo] = {}
        self.starting: dict[str, int] = {}
        self.locations: dict[SessionId, str] = {}
        self._failed: dict[str, tuple[int, float]] = {}

    def register(self, command: RegisterActor) -> tuple[bool, OwnerId | None]:
        """Record what an actor says of itself; whether it is new, and its former owner id if that changed."""
        info = self.actors.get(command.actor)
        new = info is None
        former = info.owner_id if info is not None and info.owner_id != command.owner_id else None
        if info is None:
            info = self.actors[command.actor] = ActorInfo(
                command.actor, command.node_id, command.owner_id, pool=command.pool
            )
            self._failed.pop(command.node_id, None)
        if former is not None:
            self._clear(info)
        info.owner_id = command.owner_id
        info.suspect = False
        self._sync(info, command.sessions)
        return new, former

    def _sync(self, info: ActorInfo, reported: tuple[SessionId, ...]) -> None:
        now_s, listed = self._monotonic_s(), set(reported)
        for session_id, placed_s in list(info.sessions.items()):
            if session_id not in listed and now_s - placed_s > _RECENT_S:
                self.forget(session_id, info.name)
        for session_id in listed:
            if self.locations.get(session_id) != info.name:
                self.assign(session_id, info)

    def assign(self, session_id: SessionId, info: ActorInfo) -> None:
        before = self.location(session_id)
        if before is not None and before is not info:
            before.sessions.pop(session_id, None)
        self.locations[session_id] = info.name
        info.sessions[session_id] = self._monotonic_s()

    def forget(self, session_id: SessionId, actor: str) -> None:
        """The session is not open on this actor (any more)."""
        if self.locations.get(session_id) == actor:
            del self.locations[session_id]
        info = self.actors.get(actor)
        if info is not None:
            info.sessions.pop(session_id, None)

    def remove(self, actor: str) -> ActorInfo | None:
        info = self.actors.pop(actor, None)
        if info is not None:
            sessions = dict(info.sessions)
            self._clear(info)
            info.sessions = sessions
        return info

    def location(self, session_id: SessionId) -> ActorInfo | None:
        return self.actors.get(self.locations.get(session_id, ""))

    def by_owner(self, owner_id: OwnerId) -> ActorInfo | None:
        return next((a for a in self.actors.values() if a.owner_id == owner_id), None)

    def choose(self, avoid: str | None, *, share: bool = False) -> ActorInfo | None:
        """The least loaded actor; None while an empty one can still be started, unless the session shall `share`."""
        usable = [a for a in self._hosts() if a.name != avoid and not a.suspect and a.node_id in self.nodes]
        if not usable:
            return None
        chosen = min(usable, key=lambda a: len(a.sessions))
        if chosen.sessions and not share and any(map(self._may_start, self.nodes)):
            return None
        return chosen

    def start_failed(self, node_id: str) -> float:
        """A session actor could not be started there: how long no other is tried, twice as long each time."""
        failures = self._failed.get(node_id, (0, 0.0))[0] + 1
        pause_s: float = min(_FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), _MAX_PAUSE_S)
        self._failed[node_id] = (failures, self._monotonic_s() + pause_s)
        return pause_s

    def wanted(self, demand: int = 0) -> list[str]:
        """Nodes that should start an actor now (a node may be named more than once); `demand` sessions wait."""
        found: list[str] = []
        for node_id in self.nodes:
            own = [a for a in self._hosts() if a.node_id == node_id]
            empty = sum(not a.sessions and not a.suspect for a in own) + self.starting.get(node_id, 0)
            missing = max(self._spare, demand, 1 if not own else 0) - empty
            found.extend([node_id] * max(0, min(missing, self._room(node_id))))
        return found

    def budget(self, node_id: str) -> int:
        node = self.nodes[node_id]
        if node.places is not None:
            return min(node.places, self._budget or node.places)
        return self._budget or max(1, int(node.cpus * ACTORS_PER_CPU))

    def take_nodes(self, nodes: Iterable[Node]) -> None:
        """These are there now; drained ones get nothing any more."""
        self.known = {node.node_id: node for node in nodes}
        self.drained &= self.known.keys()
        self.nodes = {node_id: node for node_id, node in self.known.items() if node_id not in self.drained}

    def drain(self, node_id: str, *, undo: bool = False) -> None:
        """Place nothing on a node any more, or again."""
        self.drained = self.drained - {node_id} if undo else self.drained | {node_id}
        self.take_nodes(self.known.values())

    def places_wanted(self, sessions_per_actor: int) -> int:
        """For how many session actors the cluster should have room: node by node, what it holds and its spares."""
        places = [node.places or 0 for node in self.nodes.values()]
        wanted = max(1, -(-len(self.locations) // sessions_per_actor)) + self._spare
        return min(wanted, sum(places) + max([*places, 1]))

    def pools(self) -> list[str]:
        """The names of the pools."""
        return [a.name for a in self.actors.values() if a.pool]

    def _hosts(self) -> list[ActorInfo]:
        return [a for a in self.actors.values() if not a.pool]

    def _may_start(self, node_id: str) -> bool:
        return bool(self._room(node_id) or self.starting.get(node_id))

    def _room(self, node_id: str) -> int:
        if self._failed.get(node_id, (0, 0.0))[1] > self._monotonic_s():
            return 0
        own = sum(a.node_id == node_id and not a.suspect for a in self._hosts())
        return max(0, self.budget(node_id) - own - self.starting.get(node_id, 0))

    def _clear(self, info: ActorInfo) -> None:
        for session_id in info.sessions:
            if self.locations.get(session_id) == info.name:
                del self.locations[session_id]
        info.sessions = {}
