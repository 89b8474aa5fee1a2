"""A whole Wunder in one process: real store, real gateway on a real port, plain method calls instead of Ray."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from actors.channels.registry import channels_of
from actors.clock import SystemClock
from actors.directory import JANITOR, Directory
from actors.errors import ServiceUnavailable
from actors.handles import Call, DirectoryHandle
from actors.janitor import Janitor
from actors.messages import AnyCommand, decode_command
from actors.models.registry import Models
from actors.outbox import Outbox, OutboxServices
from actors.placement import Node
from actors.pool import WorkerPool
from actors.session_host import SessionHost
from actors.settings import ActorSettings, LlmSettings
from actors.turn_runner import Services
from actors.wiring import create_children, create_scheduler, create_services
from gateway.main import GatewayService
from gateway.settings import Settings
from storage.factory import create_store
from storage.store import AsyncStorageBackend

DIRECTORY = "directory"
Handler = Callable[[bytes], Awaitable[bytes]]
Fault = Callable[[str, AnyCommand], Awaitable[None]]
"""Told who is called with what, before or after the call is served: it may wait, or raise `ServiceUnavailable`."""


class LocalReach:
    """Processes by name; `kill` makes one unreachable at once, `hang` makes its calls never return.

    As over Ray, a call goes on when its caller has given up waiting, and ends with the process that serves it.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._gone: dict[str, asyncio.Event] = {}
        self._hung: dict[str, asyncio.Event] = {}
        self._serving: dict[str, set[asyncio.Future[bytes]]] = {}
        self.before: list[Fault] = []
        self.after: list[Fault] = []
        self.calls = 0

    def add(self, name: str, handler: Handler) -> None:
        self._handlers[name] = handler
        self._gone[name] = asyncio.Event()
        self._serving[name] = set()

    def kill(self, name: str) -> None:
        self._handlers.pop(name, None)
        if name in self._gone:
            self._gone[name].set()
        for answer in self._serving.pop(name, set()):
            answer.cancel()

    def hang(self, name: str) -> None:
        self._hung[name] = asyncio.Event()

    def wake(self, name: str) -> None:
        self._hung.pop(name).set()

    def actor(self, name: str) -> Call:
        async def call(data: bytes) -> bytes:
            self.calls += 1
            gone = self._gone.get(name)
            if gone is None or name not in self._handlers:
                raise ServiceUnavailable(f"{name} is not there")
            answer = asyncio.ensure_future(self._serve(name, data))
            serving = self._serving[name]
            serving.add(answer)
            answer.add_done_callback(serving.discard)
            await asyncio.wait([answer])
            if answer.cancelled():
                raise ServiceUnavailable(f"{name} died")
            return answer.result()

        return call

    async def _serve(self, name: str, data: bytes) -> bytes:
        if name in self._hung:
            await self._hung[name].wait()
        command = decode_command(data) if self.before or self.after else None
        for fault in self.before if command is not None else ():
            await fault(name, command)
        answer = await self._handlers[name](data)
        for fault in self.after if command is not None else ():
            await fault(name, command)
        return answer

    async def gone(self, name: str) -> None:
        event = self._gone.get(name)
        if event is not None:
            await event.wait()


class LocalLauncher:
    """Starts session hosts as objects."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    async def nodes(self) -> list[Node]:
        return [Node("node", 2.0)]

    async def dashboard(self) -> str:
        return ""

    async def ask_room(self, places: int) -> None: ...

    async def start_actor(self, node_id: str) -> str:
        return await self._cluster.start_host()

    async def actors(self) -> list[str]:
        return [*self._cluster.hosts, *self._cluster.pools]


class LocalCluster:
    """Builds everything; `crash` ends a host as kill -9 would: nothing is flushed, nothing is told."""

    def __init__(self, settings: Settings, models: Callable[[LlmSettings], Models] = Models) -> None:
        self.settings = settings
        self.actor_settings: ActorSettings = settings.for_actors()
        self._models = models
        self.reach = LocalReach()
        self.hosts: dict[str, SessionHost] = {}
        self.pools: dict[str, WorkerPool] = {}
        self.outboxes: dict[str, Outbox] = {}
        self.gateways: dict[str, GatewayService] = {}
        self._numbers = itertools.count(1)
        self.stores: dict[str, AsyncStorageBackend] = {}
        self.directory: Directory | None = None
        self.janitor: Janitor | None = None

    @property
    def url(self) -> str:
        return next(iter(self.gateways.values())).address

    async def start(self, gateways: int = 1, pools: int = 0) -> None:
        store = create_store(self.settings.storage)
        await store.open()
        await store.migrate()
        await store.close()
        await self.start_directory()
        handle = DirectoryHandle(self.reach.actor(DIRECTORY))
        store, clock = create_store(self.settings.storage), SystemClock()
        children = create_children(self.actor_settings, store, clock, handle, self.reach)
        scheduler = create_scheduler(self.actor_settings, store, clock, handle, self.reach)
        self.janitor = Janitor(self.actor_settings, store, clock, handle, self.reach, children, scheduler)
        self.reach.add(JANITOR, self.janitor.handle)
        await self.janitor.start()
        for _ in range(gateways):
            await self.start_gateway()
        for _ in range(pools):
            await self.start_pool()

    async def start_directory(self) -> None:
        launcher = LocalLauncher(self)
        store = create_store(self.settings.storage)
        self.directory = Directory(self.actor_settings, store, SystemClock(), self.reach, launcher)
        self.reach.add(DIRECTORY, self.directory.handle)
        await self.directory.start()

    async def restart_directory(self) -> None:
        """The directory forgets everything and comes back."""
        assert self.directory is not None
        self.reach.kill(DIRECTORY)
        await self.directory.stop()
        await self.start_directory()

    async def start_gateway(self) -> GatewayService:
        name = f"gateway-{next(self._numbers)}"
        handle = DirectoryHandle(self.reach.actor(DIRECTORY))
        store = self.stores[name] = create_store(self.settings.storage)
        gateway = GatewayService(self.settings, store, handle, self.reach, name=name, node_id="node")
        self.reach.add(name, gateway.handle)
        await gateway.start()
        self.gateways[name] = gateway
        return gateway

    def _services(self, name: str) -> Services:
        settings, models = self.actor_settings, self._models(self.actor_settings.llm)
        handle = DirectoryHandle(self.reach.actor(DIRECTORY))
        return create_services(settings, self._new_store(name), SystemClock(), models, handle, self.reach)

    async def start_pool(self) -> WorkerPool:
        name = f"pool-{next(self._numbers)}"
        handle = DirectoryHandle(self.reach.actor(DIRECTORY))
        pool = WorkerPool(self._services(name), handle, self.reach, actor=name, node_id="node")
        self.reach.add(name, pool.handle)
        self.pools[name] = pool
        await pool.start()
        return pool

    async def start_outbox(self) -> Outbox:
        name = f"outbox-{next(self._numbers)}"
        settings = self.settings.for_outbox()
        clock, store = SystemClock(), self._new_store(name)
        channels = channels_of(settings, store, clock)
        services = OutboxServices(settings=settings, store=store, clock=clock, channels=channels)
        outbox = Outbox(services, DirectoryHandle(self.reach.actor(DIRECTORY)), actor=name, node_id="node")
        self.reach.add(name, outbox.handle)
        self.outboxes[name] = outbox
        await outbox.start()
        return outbox

    async def start_host(self) -> str:
        name = f"host-{next(self._numbers)}"
        services = self._services(name)
        handle = DirectoryHandle(self.reach.actor(DIRECTORY))
        host = SessionHost(services, handle, self.reach, actor=name, node_id="node")
        self.reach.add(name, host.handle)
        self.hosts[name] = host
        await host.start()
        return name

    def _new_store(self, name: str) -> AsyncStorageBackend:
        self.stores[name] = create_store(self.settings.storage)
        return self.stores[name]

    async def stop_gateway(self, name: str) -> None:
        """A rolling restart: drain, close everything, end."""
        await self.gateways.pop(name).stop()
        self.reach.kill(name)

    async def crash(self, name: str) -> None:
        host = self.pools.pop(name) if name in self.pools else self.hosts.pop(name)
        self.reach.kill(name)
        await host.crash()

    async def stop(self) -> None:
        for name in list(self.gateways):
            await self.stop_gateway(name)
        if self.janitor is not None:
            await self.janitor.stop()
        if self.directory is not None:
            await self.directory.stop()
        for name, host in [*self.pools.items(), *self.hosts.items(), *self.outboxes.items()]:
            await host.stop()
            self.reach.kill(name)
        await asyncio.sleep(0)


def local_settings(tmp_path: Path, storage_url: str | None = None, **sections: dict[str, Any]) -> Settings:
    """Settings for a test: a free port, quick hashing, an API key, and what the test says."""
    tree: dict[str, dict[str, Any]] = {
        "server": {"port": 0, "data_dir": str(tmp_path), "dashboard_port": 0},
        "storage": {"url": storage_url or f"sqlite:///{tmp_path}/wunder.db"},
        "security": {"api_key": "test-api-key"},
        "auth": {"hash_memory_kib": 64, "network_rate_per_minute": 1e6, "network_burst": 100_000},
        "llm": {"models": {"scripted": {"scripted_delay_ms": 0.0}}},
        "observability": {"log_level": "error"},
    }
    for section, values in sections.items():
        tree.setdefault(section, {}).update(values)
    return msgspec.convert(tree, Settings)


@contextlib.asynccontextmanager
async def local_cluster(
    settings: Settings, gateways: int = 1, models: Callable[[LlmSettings], Models] = Models
) -> AsyncIterator[LocalCluster]:
    """A running cluster that is stopped at the end, whatever happens."""
    cluster = LocalCluster(settings, models)
    try:
        await cluster.start(gateways)
        yield cluster
    finally:
        await cluster.stop()
