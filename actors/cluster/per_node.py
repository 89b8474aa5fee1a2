"""Processes of which every node has one, besides its gateway: adopted or started, watched, and replaced."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping

from actors.background import Background
from actors.cluster.fleet import Fleet
from actors.errors import WunderError
from actors.logs import log

Failures = dict[str, tuple[float, WunderError]]
"""By node: when its process did not start, and why."""


class PerNode:
    """The pools, or the outboxes, of all nodes. `prefix` is how a node's are named, `gone` is told of ends."""

    def __init__(
        self,
        fleet: Fleet,
        kind: str,
        prefix: Callable[[str], str],
        watches: Background,
        gone: Callable[[str], None],
        *,
        retry_s: float,
    ) -> None:
        self._fleet = fleet
        self._kind = kind
        self._prefix = prefix
        self._watches = watches
        self._gone = gone
        self._retry_s = retry_s
        self._failed: Failures = {}
        self.processes: dict[str, str] = {}

    def missing(self, node_ids: Iterable[str]) -> list[str]:
        """Nodes without one, but for those whose last try is too recent for another."""
        return missing(node_ids, self.processes, self._failed, self._retry_s)

    def has(self, node_id: str, names: Iterable[str]) -> bool:
        """Whether the node's is among these."""
        return any(name.startswith(self._prefix(node_id)) for name in names)

    async def ensure(self, node_id: str, running: list[str]) -> None:
        """Adopt the node's process that another supervisor has left, or start one; all else goes on if it fails."""
        prefix = self._prefix(node_id)
        left = next((name for name in running if name.startswith(prefix)), None)
        name = left or f"{prefix}{secrets.token_hex(4)}"
        try:
            await self._fleet.start(name, node_id)
        except WunderError as error:
            log.warning(f"{self._kind}_failed", node=node_id, message=error.message)
            self._failed[node_id] = (asyncio.get_running_loop().time(), error)
            return
        self._failed.pop(node_id, None)
        self.processes[node_id] = name
        log.info(f"{self._kind}_adopted" if left else "started", actor=name)
        self._watches.start(self._watch(node_id, name), f"watch-{name}")

    async def _watch(self, node_id: str, name: str) -> None:
        await self._fleet.gone(name)
        if self.processes.get(node_id) == name:
            log.warning(f"{self._kind}_gone", actor=name)
            del self.processes[node_id]
            self._gone(name)


def missing(node_ids: Iterable[str], have: Mapping[str, object], failed: Failures, retry_s: float) -> list[str]:
    """Nodes that lack a process, but for those whose last try is too recent for another."""
    now_s = asyncio.get_running_loop().time()
    waiting = {node_id for node_id, (failed_s, _) in failed.items() if now_s - failed_s < retry_s}
    return [node_id for node_id in node_ids if node_id not in have and node_id not in waiting]
