"""Keeps the right actors alive: one directory, one janitor, a gateway on every node. Replaces what dies."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

import ray

from actors.cluster.launcher import RayLauncher, alive_nodes, named, ready, start
from actors.cluster.reach import RayReach, find
from actors.cluster.services import DIRECTORY, JANITOR
from actors.cluster.shells import Directory, Gateway, Janitor
from actors.errors import ServiceUnavailable, WunderError
from actors.handles import ask, tell
from actors.logs import log
from actors.loop import Loop
from actors.messages import Describe, Description, Drain

GATEWAY_PREFIX = "gateway-"
_STOP_TIMEOUT_S = 10.0
_FOREVER = -1


class Supervisor:
    """`gateway_factory` is "module:function"; both settings are encoded for their processes."""

    def __init__(self, actor_settings: bytes, gateway_settings: bytes, gateway_factory: str, *, grace_s: float) -> None:
        self._actor_settings = actor_settings
        self._gateway_settings = gateway_settings
        self._gateway_factory = gateway_factory
        self._grace_s = grace_s
        self._reach = RayReach()
        self._gateways: dict[str, str] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._reconcile = Loop("supervisor", self.reconcile_once, interval_s=2.0, jitter=0.0)

    async def start(self) -> list[str]:
        """Start what is missing; the addresses of the gateways."""
        await self.reconcile_once()
        self._reconcile.start()
        addresses = []
        for name in self._gateways.values():
            described = await ask(self._reach.actor(name), Describe(), Description)
            addresses.append(str(described.info["address"]))
        return addresses

    async def reconcile_once(self) -> None:
        """Make the cluster what it should be."""
        if self._stopping:
            return
        nodes = await asyncio.to_thread(alive_nodes)
        if not nodes:
            raise ServiceUnavailable("the cluster has no node with CPUs")
        here = await asyncio.to_thread(_this_node)
        home = here if any(node.node_id == here for node in nodes) else nodes[0].node_id
        await self._singleton(Directory, DIRECTORY, home, "actors.cluster.services:directory")
        await self._singleton(Janitor, JANITOR, home, "actors.cluster.services:janitor")
        running = await named(GATEWAY_PREFIX)
        for node in nodes:
            if node.node_id not in self._gateways:
                await self._ensure_gateway(node.node_id, running)

    async def _singleton(self, shell: Any, name: str, node_id: str, factory: str) -> None:
        if await find(name) is None:
            handle = await start(shell, name, node_id, factory, self._actor_settings, restarts=_FOREVER)
            await ready(handle, name)
            log.info("started", actor=name)

    async def _ensure_gateway(self, node_id: str, running: list[str]) -> None:
        """Adopt the node's gateway that another supervisor has left, or start one."""
        prefix = f"{GATEWAY_PREFIX}{node_id[:6]}-"
        name = next((n for n in running if n.startswith(prefix)), f"{prefix}{secrets.token_hex(4)}")
        handle = await start(Gateway, name, node_id, self._gateway_factory, self._gateway_settings, restarts=0)
        await ready(handle, name)
        self._gateways[node_id] = name
        log.info("gateway_adopted" if name in running else "started", actor=name)
        task = asyncio.create_task(self._watch(node_id, name), name=f"watch-{name}")
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _watch(self, node_id: str, name: str) -> None:
        await self._reach.gone(name)
        if not self._stopping and self._gateways.get(node_id) == name:
            log.warning("gateway_gone", gateway=name)
            del self._gateways[node_id]
            self._reconcile.wake()

    async def stop(self) -> None:
        """Drain: gateways send their clients away, sessions finish what runs, then everything ends."""
        self._stopping = True
        await self._reconcile.stop()
        for task in list(self._watches):
            task.cancel()
        gateways = list(self._gateways.values())
        await self._each(gateways, Drain(grace_s=self._grace_s), timeout_s=5.0)
        actors = await RayLauncher(b"").actors()
        await self._each(actors, Drain(grace_s=self._grace_s), timeout_s=self._grace_s + 5.0)
        for name in [*actors, *gateways, JANITOR, DIRECTORY]:
            await self._end(name)

    async def _each(self, names: list[str], command: Drain, *, timeout_s: float) -> None:
        calls = [tell(self._reach.actor(name), command, timeout_s=timeout_s) for name in names]
        for name, result in zip(names, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(result, WunderError):
                log.warning("drain_failed", actor=name, message=result.message)

    async def _end(self, name: str) -> None:
        handle = await find(name)
        if handle is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await handle.stop.remote()
        with contextlib.suppress(Exception):
            await asyncio.to_thread(ray.kill, handle)


def _this_node() -> str:
    return str(ray.get_runtime_context().get_node_id())
