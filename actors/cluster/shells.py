"""Ray actors around plain objects: each shell builds its service from a factory's name and passes bytes through."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Protocol

import ray


class Service(Protocol):
    """What a shell hosts."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def handle(self, data: bytes) -> bytes: ...


class _Shell:
    """`factory` is "module:function"; it gets the actor's name, its node, and the settings as bytes."""

    def __init__(self, factory: str, name: str, node_id: str, settings: bytes) -> None:
        module, _, function = factory.partition(":")
        self._name = name
        self._service: Service = getattr(importlib.import_module(module), function)(name, node_id, settings)
        self._started: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    async def start(self) -> None:
        """Start the service; calling it again waits for the same start."""
        await self._once()

    @ray.method(enable_task_events=False)  # type: ignore[untyped-decorator]
    async def call(self, data: bytes) -> bytes:
        """One encoded command, one encoded reply."""
        if self._started is None or not self._started.done():
            # Ray restarts an actor with empty memory: the first call starts the service again.
            await self._once()
        return await self._service.handle(data)

    async def stay(self) -> None:
        """Never returns: the caller learns of this process's end."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        await self._service.stop()

    async def _once(self) -> None:
        if self._started is None or (self._started.done() and self._started.exception()):
            self._started = asyncio.create_task(self._service.start(), name="start")
        await asyncio.shield(self._started)


class SessionActor(_Shell):
    """Hosts sessions."""


class Directory(_Shell):
    """Knows who owns which session, and holds the permits."""


class Janitor(_Shell):
    """Sweeps and expires."""


class Gateway(_Shell):
    """The aiohttp server of a node."""


MAX_CALLS = 100_000
"""Calls a shell takes at once: the services bound their own work, Ray must not queue before them."""


def remote(shell: type[_Shell], *, restarts: int, **options: Any) -> Any:
    """The Ray class of a shell: detached, named, without a claim on CPUs."""
    return ray.remote(shell).options(
        num_cpus=0,
        lifetime="detached",
        max_restarts=restarts,
        max_task_retries=0,
        max_concurrency=MAX_CALLS,
        **options,
    )
