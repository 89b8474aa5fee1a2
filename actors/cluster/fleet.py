"""The processes that a supervisor looks after: what it can do to them, and how that is done over Ray."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from actors.cluster.launcher import OUTBOX_PREFIX, POOL_PREFIX, PREFIX, alive_nodes, named, ready, start
from actors.cluster.reach import RayReach, find
from actors.cluster.services import DIRECTORY, JANITOR
from actors.cluster.shells import Directory, Gateway, Janitor, Outbox, WorkerPool, fingerprint
from actors.errors import ServiceUnavailable
from actors.handles import Call, Reach
from actors.messages import Describe, encode
from actors.placement import Node
from actors.replies import Description, decode_reply

GATEWAY_PREFIX = "gateway-"
SESSION_ACTOR_PREFIX = PREFIX
PROBE_S = 5.0
_PAUSE_S = 0.2
_STOP_S = 10.0
_KILL_S = 10.0
_FOREVER = -1


class Fleet(Reach, Protocol):
    """Processes by name."""

    async def nodes(self) -> list[Node]:
        """The nodes with CPUs, our own first."""

    async def names(self, prefix: str = "") -> list[str]:
        """Those that exist."""

    async def start(self, name: str, node_id: str) -> None:
        """Create one and wait until its service runs; `ServiceUnavailable` if it does not."""

    async def describe(self, name: str) -> Description | None:
        """What it says of itself, None if it says nothing in time; `ServiceUnavailable` if its service cannot start."""

    async def stop(self, name: str) -> None:
        """Let it end cleanly, but end it."""

    async def kill(self, name: str) -> None:
        """End it without asking; its name is free afterwards."""

    def settings_of(self, name: str) -> str:
        """The fingerprint of the settings that it should run with."""


class RayFleet:
    """`gateway_factory` is "module:function"; all settings are encoded for their processes."""

    def __init__(
        self, actor_settings: bytes, gateway_settings: bytes, gateway_factory: str, outbox_settings: bytes = b""
    ) -> None:
        self._actor_settings = actor_settings
        self._outbox_settings = outbox_settings
        self._gateway_settings = gateway_settings
        self._gateway_factory = gateway_factory
        self._reach = RayReach()

    def actor(self, name: str) -> Call:
        return self._reach.actor(name)

    async def gone(self, name: str) -> None:
        await self._reach.gone(name)

    async def nodes(self) -> list[Node]:
        nodes = await asyncio.to_thread(alive_nodes)
        here = await asyncio.to_thread(_this_node)
        return sorted(nodes, key=lambda node: node.node_id != here)

    async def names(self, prefix: str = "") -> list[str]:
        return await asyncio.to_thread(named, prefix)

    async def start(self, name: str, node_id: str) -> None:
        settings = self._actor_settings
        if name == DIRECTORY:
            factory = "actors.cluster.services:directory"
            handle = await start(Directory, name, node_id, factory, settings, restarts=_FOREVER)
        elif name == JANITOR:
            factory = "actors.cluster.services:janitor"
            handle = await start(Janitor, name, node_id, factory, settings, restarts=_FOREVER)
        elif name.startswith(POOL_PREFIX):
            factory = "actors.cluster.services:worker_pool"
            handle = await start(WorkerPool, name, node_id, factory, settings, restarts=0)
        elif name.startswith(OUTBOX_PREFIX):
            factory, settings = "actors.cluster.services:outbox", self._outbox_settings
            handle = await start(Outbox, name, node_id, factory, settings, restarts=0)
        else:
            factory, settings = self._gateway_factory, self._gateway_settings
            handle = await start(Gateway, name, node_id, factory, settings, restarts=0)
        await ready(handle, name)

    async def describe(self, name: str) -> Description | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_S):
                return await self._describe(name)
        return None

    async def _describe(self, name: str) -> Description | None:
        while (handle := await find(name)) is not None:
            try:
                reply = decode_reply(await handle.call.remote(_DESCRIBE))
            except RayTaskError as error:
                raise ServiceUnavailable(f"{name} failed: {error.cause}") from None
            except RayError:
                await asyncio.sleep(_PAUSE_S)  # Ray restarts it, or has not noticed its end
                continue
            return reply if isinstance(reply, Description) else None
        return None

    async def stop(self, name: str) -> None:
        handle = await find(name)
        if handle is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_STOP_S):
                    await handle.stop.remote()
            with contextlib.suppress(Exception):
                await asyncio.to_thread(ray.kill, handle)

    async def kill(self, name: str) -> None:
        handle = await find(name)
        if handle is None:
            return
        await asyncio.to_thread(ray.kill, handle)
        try:
            async with asyncio.timeout(_KILL_S):
                await self._reach.gone(name)
        except TimeoutError:
            raise ServiceUnavailable(f"{name} does not end") from None

    def settings_of(self, name: str) -> str:
        by_prefix = {GATEWAY_PREFIX: self._gateway_settings, OUTBOX_PREFIX: self._outbox_settings}
        found = (settings for prefix, settings in by_prefix.items() if name.startswith(prefix))
        return fingerprint(next(found, self._actor_settings))


def gateway_is_here() -> bool:
    """Whether a gateway of ours, of whichever supervisor, runs on this node."""
    return bool(named(gateway_prefix(_this_node())))


def gateway_prefix(node_id: str) -> str:
    """How the names of a node's gateways begin."""
    return f"{GATEWAY_PREFIX}{node_id[:6]}-"


def session_actor_prefix(node_id: str) -> str:
    """How the names of a node's session actors begin."""
    return f"{SESSION_ACTOR_PREFIX}{node_id[:6]}-"


def pool_prefix(node_id: str) -> str:
    """How the names of a node's pools begin."""
    return f"{POOL_PREFIX}{node_id[:6]}-"


def outbox_prefix(node_id: str) -> str:
    """How the names of a node's outboxes begin."""
    return f"{OUTBOX_PREFIX}{node_id[:6]}-"


def _this_node() -> str:
    return str(ray.get_runtime_context().get_node_id())


_DESCRIBE = encode(Describe())
