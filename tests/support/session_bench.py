"""A session host over a real store, with a played model, played tools, and a real directory."""

from __future__ import annotations

from typing import Any

from actors.handles import DirectoryHandle, ask, tell
from actors.messages import Batch, BusyPolicy, CancelTurn, Command, Describe, Submit
from actors.replies import CancelReceipt, Description, Event, Submitted
from actors.session_host import SessionHost
from actors.session_runner import SessionRunner
from actors.settings import ActorSettings, SessionsSettings
from actors.turn_runner import Services
from actors.wiring import create_children
from storage.records import EventRecord, SessionId, TaskRecord, TurnId, UserId
from storage.store import AsyncStorageBackend
from tests.support.directory_bench import DirectoryBench, KeptStore
from tests.support.doubles import PlayedModel, PlayedModels, PlayedTool, PlayedTools
from tests.support.facts import eventually
from tests.support.flaky_store import FlakyStore

SESSION = SessionId("s")
USER = UserId("ada")


class SessionBench:
    """One host; more of them share the directory and the store."""

    def __init__(self, store: AsyncStorageBackend, **sessions: Any) -> None:
        self.real = store
        self.settings = SessionsSettings(**{"line_interval_ms": 0.0, "permit_linger_s": 0.0, **sessions})
        limits = {name: getattr(self.settings, name) for name in ("max_active", "max_active_per_user")}
        self.directory = DirectoryBench(store, max_actors_per_node=1, **limits)
        self.directory.launcher.found = []
        self.hosts: list[SessionHost] = []
        self.store = FlakyStore(KeptStore(store))  # type: ignore[arg-type]

    async def host(self, model: PlayedModel, *tools: PlayedTool) -> SessionHost:
        """Start a host; it is the one that is asked from now on."""
        if not self.hosts:
            await self.directory.start()
        name = f"host-{len(self.hosts) + 1}"
        self.store = FlakyStore(KeptStore(self.real))  # type: ignore[arg-type]
        handle = DirectoryHandle(self.directory.directory.handle)
        settings, clock = ActorSettings(sessions=self.settings), self.directory.clock
        children = create_children(settings, self.store, clock, handle, self.directory.reach)  # type: ignore[arg-type]
        services = Services(
            settings=settings,
            store=self.store,  # type: ignore[arg-type]
            clock=clock,
            models=PlayedModels(model),  # type: ignore[arg-type]
            tools=PlayedTools(*tools),  # type: ignore[arg-type]
            children=children,
        )
        made = SessionHost(services, handle, self.directory.reach, actor=name, node_id="node-0")
        await made.start()
        self.hosts.append(made)
        return made

    async def crash(self) -> None:
        """The host dies as with kill -9; its lease ends, as the directory sees to."""
        dead = self.hosts[-1]
        owner_id = dead._lease.owner_id
        await dead.crash()
        self.directory.reach.kill(f"host-{len(self.hosts)}")
        await self.real.expire_owner(owner_id)

    async def stop(self) -> None:
        for host in self.hosts:
            if not host._lease._renewal._task or not host._lease._renewal._task.done():
                await host.stop()
        await self.directory.directory.stop()

    async def tell(self, command: Command) -> None:
        await tell(self.hosts[-1].handle, command)

    async def submit(self, turn: str = "t1", *, busy: BusyPolicy = "enqueue", **fields: Any) -> Submitted:
        command = Submit(
            session_id=SESSION, user_id=USER, turn_id=TurnId(turn), content=turn, create=True, busy=busy,
            gateway="gateway", **fields,
        )  # fmt: skip
        return await ask(self.hosts[-1].handle, command, Submitted)

    async def cancel(self, turn: str | None = None) -> CancelReceipt:
        command = CancelTurn(session_id=SESSION, user_id=USER, turn_id=TurnId(turn) if turn else None)
        return await ask(self.hosts[-1].handle, command, CancelReceipt)

    async def ended(self, turn: str = "t1") -> TaskRecord:
        """The turn's task once its end is recorded."""
        runner = self.hosts[-1]._runners.get(SESSION)
        await eventually(lambda: self._announced(turn), f"{turn} ended")
        if runner is not None:
            await eventually(lambda: runner.session.active_turn != turn, f"{turn} is over")
        task = await self.real.get_task(TurnId(turn))
        assert task is not None
        return task

    def _announced(self, turn: str) -> bool:
        return any(e.kind == "turn_terminal" and e.turn_id == turn for e in self.events)

    @property
    def events(self) -> list[Event]:
        """What the gateway was sent."""
        batches = self.directory.reach.heard("gateway", Batch)
        return [event for batch in batches for event in batch.events]  # type: ignore[union-attr]

    @property
    def runner(self) -> SessionRunner:
        return self.hosts[-1]._runners[SESSION]

    async def stored(self) -> list[EventRecord]:
        return await self.real.read_events(SESSION, after=0, limit=10_000, max_bytes=1 << 24)

    async def messages(self) -> list[tuple[str, str]]:
        records = await self.real.load_messages(SESSION, limit=1000)
        return [(record.role, record.body.decode()) for record in records]

    async def gauges(self) -> dict[str, float]:
        return (await ask(self.hosts[-1].handle, Describe(), Description)).gauges
