"""Factories of the service's processes: the product's own, with the statements and tools of a run.

Imported by Ray's workers, where it changes what their process has loaded, and nothing else.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec

import storage.postgres
from actors import wiring
from actors.cluster import launcher
from actors.cluster import services as product
from actors.cluster.services import directory, janitor, session_actor
from actors.owner_lease import OwnerLease
from actors.pool import WorkerPool
from actors.settings import ActorSettings
from scripts.chaos_runs.effects import ChaosModels, ChaosTools
from scripts.chaos_runs.options import the_plan
from scripts.chaos_runs.statements import changed
from storage.statements import load

__all__ = ["directory", "janitor", "session_actor", "worker_pool"]

_start: Any = launcher.start
_take: Any = OwnerLease.take
_name = ""


def worker_pool(name: str, node_id: str, data: bytes) -> WorkerPool:
    """A pool that reaches the database through its own proxy. The number of its node begins its name's end."""
    global _name  # noqa: PLW0603 - one pool per process
    _name = name
    settings = msgspec.msgpack.decode(data, type=ActorSettings)
    port = the_plan().proxies[int(name.removeprefix(launcher.POOL_PREFIX)[:2])]
    server, _, database = settings.storage.url.rpartition("/")
    url = f"{server.rpartition(':')[0]}:{port}/{database}"
    proxied = msgspec.structs.replace(settings, storage=msgspec.structs.replace(settings.storage, url=url))
    return product.worker_pool(name, node_id, msgspec.msgpack.encode(proxied))


async def start(shell: Any, name: str, node_id: str, factory: str, settings: bytes, *, restarts: int) -> Any:
    """Processes are made by the factories here."""
    ours = factory.replace(product.__name__, __name__)
    return await _start(shell, name, node_id, ours, settings, restarts=restarts)


async def take(lease: OwnerLease) -> None:
    """Who owns under which id is written down."""
    await _take(lease)
    if _name:
        _write({"pid": os.getpid(), "pool": _name, "owner": lease.owner_id, "at_us": time.time_ns() // 1000})


def _write(line: dict[str, Any]) -> None:
    with Path(the_plan().owners).open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def _install() -> None:
    queries = changed(load("postgres"), fenced=the_plan().fenced)
    storage.postgres.load = lambda _: queries
    product.Models = ChaosModels
    wiring.Tools = ChaosTools
    launcher.start = start
    OwnerLease.take = take


_install()
