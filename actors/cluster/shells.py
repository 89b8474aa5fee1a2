"""Ray actors around plain objects: each shell builds its service from a factory's name and passes bytes through."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
from importlib.metadata import version
from typing import Any, Protocol

import msgspec
import ray

from actors.errors import WunderError
from actors.messages import Describe, Drain, encode
from actors.replies import Description, decode_reply

_DESCRIBE = encode(Describe())
_DRAIN = encode(Drain(grace_s=0.0)).partition(b"grace_s")[0]
"""How an encoded `Drain` begins: commands are not decoded here only to find it."""


class Service(Protocol):
    """What a shell hosts."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def handle(self, data: bytes) -> bytes: ...


def fingerprint(settings: bytes) -> str:
    """What a process was started with, in short: this version of the code, and these settings."""
    return hashlib.sha256(version("wunder").encode() + settings).hexdigest()[:16]


class _Shell:
    """`factory` is "module:function"; it gets the actor's name, its node, and the settings as bytes."""

    def __init__(self, factory: str, name: str, node_id: str, settings: bytes) -> None:
        module, _, function = factory.partition(":")
        self._name = name
        self._service: Service = getattr(importlib.import_module(module), function)(name, node_id, settings)
        self._settings = fingerprint(settings)
        # A restarted one may be on another node than the one it was meant for.
        self._node_id = str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else node_id
        self._draining = False
        self._running = False
        self._starting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    async def start(self) -> None:
        """Start the service; calling it again waits for the same start, or tries again after one that failed."""
        if not self._running:
            await self._once()

    @ray.method(enable_task_events=False)  # type: ignore[untyped-decorator]
    async def call(self, data: bytes) -> bytes:
        """One encoded command, one encoded reply; `Describe` also tells what the shell knows."""
        if not self._running:
            # Ray restarts an actor with empty memory: the first call starts the service again, or the one after it.
            await self._once()
        if data == _DESCRIBE:
            return self._described(await self._service.handle(data))
        if data.startswith(_DRAIN):
            self._draining = True
        return await self._service.handle(data)

    async def stay(self) -> None:
        """Never returns: the caller learns of this process's end."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        await self._service.stop()

    async def _once(self) -> None:
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start(), name="start")
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self._service.start()
        self._running = True

    def _described(self, answer: bytes) -> bytes:
        with contextlib.suppress(WunderError):
            reply = decode_reply(answer)
            if isinstance(reply, Description):
                info = {**reply.info, "settings": self._settings, "draining": self._draining, "node_id": self._node_id}
                return encode(msgspec.structs.replace(reply, info=info))
        return answer


class SessionActor(_Shell):
    """Hosts sessions."""


class Directory(_Shell):
    """Knows who owns which session, and holds the permits."""


class Janitor(_Shell):
    """Sweeps and expires."""


class Gateway(_Shell):
    """The aiohttp server of a node."""


class WorkerPool(_Shell):
    """Runs background tasks."""


class Outbox(_Shell):
    """Sends what is recorded to be sent."""


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
