"""Processes by name for a supervisor, without any: what was done to them, and how they behave."""

from __future__ import annotations

import asyncio

from actors.cluster.fleet import GATEWAY_PREFIX, gateway_prefix, outbox_prefix, pool_prefix
from actors.cluster.launcher import POOL_PREFIX
from actors.errors import ServiceUnavailable
from actors.handles import Call
from actors.messages import AnyCommand, decode_command, encode
from actors.placement import Node
from actors.replies import Description, Done

SETTINGS = "the settings"


class FakeFleet:
    """Every process says that it is `on` one node. `silent` ones do not answer, `broken` ones cannot start.

    `refusing`: how often a start fails. The start of a gateway is named by its node, that of a pool by its node's
    `pool_prefix`. `hold` holds up what a process says of itself, or the start of a pool.
    """

    def __init__(self, *node_ids: str) -> None:
        self.node_ids = list(node_ids)
        self.on = node_ids[0]
        self.started: list[str] = []
        self.described: list[str] = []
        self.killed: list[str] = []
        self.stopped: list[str] = []
        self.told: list[str] = []
        self.silent: set[str] = set()
        self.broken: set[str] = set()
        self.refusing: dict[str, int] = {}
        self.hold: dict[str, asyncio.Event] = {}
        self.drained: set[str] = set()
        self.commands: list[AnyCommand] = []
        self.incarnation = "directory_1"
        self._info: dict[str, dict[str, object]] = {}
        self._gone: dict[str, asyncio.Event] = {}

    def add(self, name: str, *, settings: str = SETTINGS, draining: bool = False) -> None:
        """A process that is there already."""
        self._info[name] = {"settings": settings, "draining": draining, "address": f"http://{name}"}
        self._gone[name] = asyncio.Event()

    def remove(self, name: str) -> None:
        """It has died."""
        del self._info[name]
        self.silent.discard(name)
        self.broken.discard(name)
        self._gone[name].set()

    def gateways(self, node_id: str) -> list[str]:
        return [name for name in self._info if name.startswith(gateway_prefix(node_id))]

    def pools(self, node_id: str) -> list[str]:
        return [name for name in self._info if name.startswith(pool_prefix(node_id))]

    def outboxes(self, node_id: str) -> list[str]:
        return [name for name in self._info if name.startswith(outbox_prefix(node_id))]

    def actor(self, name: str) -> Call:
        async def call(data: bytes) -> bytes:
            self.told.append(name)
            self.commands.append(decode_command(data))
            return encode(Done())

        return call

    async def gone(self, name: str) -> None:
        await self._gone[name].wait()

    async def nodes(self) -> list[Node]:
        return [Node(node_id, 2.0) for node_id in self.node_ids]

    async def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._info if name.startswith(prefix)]

    async def start(self, name: str, node_id: str) -> None:
        key = node_id if name.startswith(GATEWAY_PREFIX) else name
        if name.startswith(POOL_PREFIX):
            key = pool_prefix(node_id)
            if key in self.hold:
                await self.hold[key].wait()
        if self.refusing.get(key, 0):
            self.refusing[key] -= 1
            raise ServiceUnavailable(f"{name} did not start: the port is taken")
        if name not in self._info:
            self.started.append(name)
            self.add(name)

    async def describe(self, name: str) -> Description | None:
        self.described.append(name)
        if name in self.hold:
            await self.hold[name].wait()
        if name in self.broken:
            raise ServiceUnavailable(f"{name} failed: no database")
        if name in self.silent or name not in self._info:
            return None
        nodes = [{"node_id": node_id, "drained": node_id in self.drained} for node_id in self.node_ids]
        return Description(
            gauges={},
            info={**self._info[name], "node_id": self.on, "nodes": nodes, "incarnation": self.incarnation},
        )

    async def stop(self, name: str) -> None:
        self.stopped.append(name)
        self._info.pop(name, None)

    async def kill(self, name: str) -> None:
        self.killed.append(name)
        self.remove(name)

    def settings_of(self, name: str) -> str:
        return SETTINGS
