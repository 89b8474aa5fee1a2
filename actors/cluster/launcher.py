"""Starting session actors on nodes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ray
from ray._private.services import get_webui_url_from_internal_kv
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cluster.reach import NAMESPACE
from actors.cluster.shells import Directory, Gateway, Janitor, SessionActor, _Shell, remote
from actors.errors import ServiceUnavailable
from actors.placement import Node

PREFIX = "session-actor-"
POOL_PREFIX = "pool-"
OUTBOX_PREFIX = "outbox-"
_START_TIMEOUT_S = 60.0


class RayLauncher:
    """Session actors are never restarted by Ray: a new process is a new owner with a new name.

    With a `resource` each takes one of it, and a node has as many places for them as it offers.
    """

    def __init__(self, settings: bytes, resource: str = "") -> None:
        self._settings = settings
        self._resource = resource

    async def nodes(self) -> list[Node]:
        return await asyncio.to_thread(alive_nodes, self._resource)

    async def dashboard(self) -> str:
        return str(await asyncio.to_thread(get_webui_url_from_internal_kv) or "")

    async def ask_room(self, places: int) -> None:
        await asyncio.to_thread(request_resources, bundles=[{self._resource: 1}] * places)

    async def start_actor(self, node_id: str) -> str:
        name = f"{PREFIX}{node_id[:6]}-{secrets.token_hex(4)}"
        factory = "actors.cluster.services:session_actor"
        demand = {self._resource: 1.0} if self._resource else {}
        handle = await start(SessionActor, name, node_id, factory, self._settings, restarts=0, resources=demand)
        await ready(handle, name)
        return name

    async def actors(self) -> list[str]:
        return await asyncio.to_thread(named, (PREFIX, POOL_PREFIX))


def named(prefix: str | tuple[str, ...]) -> list[str]:
    """The names of our actors that begin so."""
    listed = ray.util.list_named_actors(all_namespaces=True)
    return [a["name"] for a in listed if a["namespace"] == NAMESPACE and a["name"].startswith(prefix)]


def alive_nodes(resource: str = "") -> list[Node]:
    """The nodes with CPUs, and how many session actors each has places for, if a resource says so."""
    return [
        Node(
            node["NodeID"],
            float(node["Resources"].get("CPU", 1)),
            node["NodeManagerAddress"],
            int(node["Resources"].get(resource, 0)) if resource else None,
        )
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]


async def start(
    shell: type[_Shell],
    name: str,
    node_id: str,
    factory: str,
    settings: bytes,
    *,
    restarts: int,
    resources: Mapping[str, float] = MappingProxyType({}),
) -> Any:
    """Create a named shell on a node (creation talks to the GCS and blocks, so it runs in a thread)."""

    def create() -> Any:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=restarts != 0)
        actor = remote(
            shell,
            restarts=restarts,
            name=name,
            namespace=NAMESPACE,
            scheduling_strategy=strategy,
            get_if_exists=True,
            resources=dict(resources),
        )
        return actor.remote(factory, name, node_id, settings)

    return await asyncio.to_thread(create)


async def ready(handle: Any, name: str) -> None:
    """Wait until its service has started; an actor that could not is killed."""
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await handle.start.remote()
    except Exception as error:
        await asyncio.to_thread(ray.kill, handle)
        cause = getattr(error, "cause", None) or error
        raise ServiceUnavailable(f"{name} did not start: {cause}") from None


__all__ = ["Directory", "Gateway", "Janitor", "RayLauncher", "alive_nodes", "ready", "start"]
