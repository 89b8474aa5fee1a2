"""Factories: what each shell hosts, wired with Ray behind it. Named by string in the shells' arguments."""

from __future__ import annotations

import msgspec

from actors.channels.registry import channels_of
from actors.channels.settings import OutboxProcessSettings
from actors.clock import SystemClock
from actors.cluster.launcher import RayLauncher
from actors.cluster.reach import RayReach
from actors.directory import JANITOR
from actors.directory import Directory as DirectoryService
from actors.handles import DirectoryHandle
from actors.janitor import Janitor as JanitorService
from actors.logs import configure_logs
from actors.models.registry import Models
from actors.outbox import Outbox, OutboxServices
from actors.pool import WorkerPool
from actors.session_host import SessionHost
from actors.settings import ActorSettings
from actors.turn_runner import Services
from actors.wiring import create_children, create_scheduler, create_services
from storage.factory import create_store

DIRECTORY = "directory"

__all__ = ["DIRECTORY", "JANITOR", "directory", "janitor", "outbox", "session_actor", "worker_pool"]


def session_actor(name: str, node_id: str, data: bytes) -> SessionHost:
    reach = RayReach()
    handle = DirectoryHandle(reach.actor(DIRECTORY))
    return SessionHost(_services(data, handle, reach), handle, reach, actor=name, node_id=node_id)


def worker_pool(name: str, node_id: str, data: bytes) -> WorkerPool:
    reach = RayReach()
    handle = DirectoryHandle(reach.actor(DIRECTORY))
    return WorkerPool(_services(data, handle, reach), handle, reach, actor=name, node_id=node_id)


def outbox(name: str, node_id: str, data: bytes) -> Outbox:
    settings = msgspec.msgpack.decode(data, type=OutboxProcessSettings)
    configure_logs(settings.actors.observability)
    clock = SystemClock()
    store = create_store(settings.actors.storage)
    services = OutboxServices(
        settings=settings,
        store=store,
        clock=clock,
        channels=channels_of(settings, store, clock),
    )
    return Outbox(services, DirectoryHandle(RayReach().actor(DIRECTORY)), actor=name, node_id=node_id)


def directory(name: str, node_id: str, data: bytes) -> DirectoryService:
    settings = _settings(data)
    launcher = RayLauncher(data, settings.sessions.actor_resource)
    return DirectoryService(settings, create_store(settings.storage), SystemClock(), RayReach(), launcher)


def janitor(name: str, node_id: str, data: bytes) -> JanitorService:
    settings = _settings(data)
    reach = RayReach()
    handle = DirectoryHandle(reach.actor(DIRECTORY))
    store, clock = create_store(settings.storage), SystemClock()
    children = create_children(settings, store, clock, handle, reach)
    scheduler = create_scheduler(settings, store, clock, handle, reach)
    return JanitorService(settings, store, clock, handle, reach, children, scheduler)


def _services(data: bytes, handle: DirectoryHandle, reach: RayReach) -> Services:
    settings = _settings(data)
    return create_services(settings, create_store(settings.storage), SystemClock(), Models(settings.llm), handle, reach)


def _settings(data: bytes) -> ActorSettings:
    settings = msgspec.msgpack.decode(data, type=ActorSettings)
    configure_logs(settings.observability)
    return settings
