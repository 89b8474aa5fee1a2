"""A directory with a real store, a launcher and a reach that the test plays."""

from __future__ import annotations

from typing import Any

from actors.directory import Directory
from actors.handles import DirectoryHandle
from actors.messages import Describe, RegisterActor, encode
from actors.placement import Node
from actors.replies import Description, Permit, decode_reply
from actors.settings import ActorSettings, AgentQueueSettings, SessionsSettings
from storage.records import OwnerId, SessionId, UserId
from storage.store import AsyncStorageBackend
from tests.support.doubles import FakeLauncher, FakeReach
from tests.support.facts import eventually
from tests.support.manual_clock import ManualClock


class KeptStore:
    """The test's store, which the directory may open and close without ending it."""

    def __init__(self, store: AsyncStorageBackend) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def open(self) -> None: ...
    async def close(self) -> None: ...


class DirectoryBench:
    """`actor-1`, `actor-2` ... register as they are started; `restart` forgets everything but them."""

    def __init__(self, store: AsyncStorageBackend, *, nodes: int = 1, queue: int = 100, **sessions: Any) -> None:
        self.store = store
        self.clock = ManualClock()
        self.reach = FakeReach()
        self.launcher = FakeLauncher(*(Node(f"node-{i}", 2.0) for i in range(nodes)))
        self.launcher.on_start = self._started
        self.settings = ActorSettings(
            sessions=SessionsSettings(**{"spare_actors": 0, **sessions}),
            agent_queue=AgentQueueSettings(max_queued=queue),
        )
        self.directory = self._new()

    def _new(self) -> Directory:
        made = Directory(self.settings, KeptStore(self.store), self.clock, self.reach, self.launcher)  # type: ignore[arg-type]
        self.handle = DirectoryHandle(made.handle)
        return made

    async def start(self) -> None:
        await self.directory.start()
        await eventually(self.directory._ready.is_set, "the directory is ready")

    async def restart(self) -> None:
        await self.directory.stop()
        self.directory = self._new()
        await self.start()

    async def _started(self, node_id: str, name: str) -> None:
        await self.report(name, node_id=node_id)

    async def report(
        self,
        name: str,
        *,
        node_id: str = "node-0",
        owner: str | None = None,
        sessions: tuple[str, ...] = (),
        held: tuple[str, ...] = (),
        waiting: tuple[str, ...] = (),
        user: str = "u",
    ) -> None:
        """What a session actor says of itself."""
        await self.handle.register_actor(
            RegisterActor(
                actor=name,
                node_id=node_id,
                owner_id=OwnerId(owner or f"own-{name}"),
                sessions=tuple(map(SessionId, sessions)),
                held=tuple((SessionId(s), UserId(user)) for s in held),
                waiting=tuple((SessionId(s), UserId(user)) for s in waiting),
            )
        )

    async def locate(self, session_id: str, **hints: Any) -> str:
        return await self.handle.locate(SessionId(session_id), **hints)

    async def acquire(self, session_id: str, actor: str = "a", *, user: str = "u", wait: bool = True) -> Permit:
        return await self.handle.acquire(SessionId(session_id), UserId(user), actor, wait=wait)

    async def release(self, session_id: str, actor: str = "a") -> None:
        await self.handle.release(SessionId(session_id), actor)

    async def describe(self) -> Description:
        answer = decode_reply(await self.directory.handle(encode(Describe())))
        assert isinstance(answer, Description)
        return answer

    @property
    def held(self) -> dict[str, str]:
        """Sessions with a permit, and the actor that holds it."""
        return {s: h.actor for s, h in self.directory.desk.permits.held.items()}

    @property
    def waiting(self) -> list[str]:
        return list(self.directory.desk.permits.waiting)
