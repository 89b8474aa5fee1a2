"""Keeps the right processes alive: one directory, one janitor, and on every node a gateway, a pool and an outbox.

Each round starts what is missing and asks everybody for a `Describe`: that starts the service of a process that Ray
has restarted (nobody may ever call it otherwise), and finds the ones that hang, which Ray never notices.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from typing import NamedTuple

from actors.background import Background
from actors.cluster.fleet import GATEWAY_PREFIX, SESSION_ACTOR_PREFIX, Fleet, gateway_prefix, outbox_prefix, pool_prefix
from actors.cluster.launcher import OUTBOX_PREFIX, POOL_PREFIX
from actors.cluster.per_node import Failures, PerNode, missing
from actors.cluster.services import DIRECTORY, JANITOR
from actors.errors import ServiceUnavailable, WunderError
from actors.handles import tell
from actors.logs import log
from actors.loop import Loop
from actors.messages import Drain

SINGLETONS = (DIRECTORY, JANITOR)
MISSES = 3
"""Probes without an answer, one after the other, that make a process a hung one."""
_START_TRIES = 3
_LEAST_GRACE_S = 1.0
_OUTBOX_GRACE_S = 5.0
"""What is not sent by then is sent by another outbox, or after the next start."""


class _Gateway(NamedTuple):
    name: str
    address: str


class Supervisor:
    """`retry_s` passes before a node whose gateway, pool or outbox did not start is tried again."""

    def __init__(
        self, fleet: Fleet, *, grace_s: float, retry_s: float = 5.0, pools: bool = True, outboxes: bool = False
    ) -> None:
        self._fleet = fleet
        self._grace_s = grace_s
        self._retry_s = retry_s
        self._gateways: dict[str, _Gateway] = {}
        self._failed: Failures = {}
        self._misses: Counter[str] = Counter()
        self._watches = Background()
        self._stopping = False
        self._reconcile = Loop("supervisor", self.reconcile_once, interval_s=2.0, jitter=0.0)
        kinds = [("pool", pool_prefix)] * pools + [("outbox", outbox_prefix)] * outboxes
        self._per_node = [
            PerNode(fleet, kind, prefix, self._watches, self._node_process_gone, retry_s=retry_s)
            for kind, prefix in kinds
        ]

    async def start(self) -> list[str]:
        """Replace what an earlier supervisor left and cannot serve, start what is missing; the gateways' addresses."""
        replaced = await self._clear_leftovers()
        # A hung gateway that is killed may keep its port for some seconds.
        for tries_left in reversed(range(_START_TRIES if replaced else 1)):
            await self.reconcile_once()
            if self._gateways or not tries_left:
                break
            await asyncio.sleep(self._retry_s)
        if not self._gateways:
            raise next((error for _, error in self._failed.values()), ServiceUnavailable("no gateway has started"))
        self._reconcile.start()
        return [gateway.address for gateway in self._gateways.values()]

    async def reconcile_once(self) -> None:
        """Make the cluster what it should be; what could not be done with a singleton is raised after all the rest."""
        if self._stopping:
            return
        nodes = await self._fleet.nodes()
        if not nodes:
            raise ServiceUnavailable("the cluster has no node with CPUs")
        running = await self._fleet.names()
        failures: list[BaseException | None] = []
        for name in SINGLETONS:
            if name not in running:
                failures.append(await self._start_singleton(name, nodes[0].node_id))
        probed = [*SINGLETONS, *(gateway.name for gateway in self._gateways.values())]
        probed += [name for kind in self._per_node for name in kind.processes.values()]
        node_ids = [node.node_id for node in nodes]
        without = missing(node_ids, self._gateways, self._failed, self._retry_s)
        failures += await asyncio.gather(
            *(self._probe(name) for name in probed),
            *(self._ensure_gateway(node_id, running) for node_id in without),
            *(kind.ensure(node_id, running) for kind in self._per_node for node_id in kind.missing(node_ids)),
            return_exceptions=True,
        )
        for failure in failures:
            if failure is not None:
                raise failure

    async def _start_singleton(self, name: str, node_id: str) -> WunderError | None:
        try:
            await self._fleet.start(name, node_id)
        except WunderError as error:
            return error
        log.info("started", actor=name)
        return None

    # -- gateways ------------------------------------------------------------------------------------------------

    async def _ensure_gateway(self, node_id: str, running: list[str]) -> None:
        """Adopt the node's gateway that another supervisor has left, or start one; other nodes go on if it fails."""
        prefix = gateway_prefix(node_id)
        left = next((name for name in running if name.startswith(prefix)), None)
        name = left or f"{prefix}{secrets.token_hex(4)}"
        try:
            await self._fleet.start(name, node_id)
            described = await self._fleet.describe(name)
            if described is None:
                await self._fleet.kill(name)
                raise ServiceUnavailable(f"{name} does not answer")
        except WunderError as error:
            log.warning("gateway_failed", node=node_id, message=error.message)
            self._failed[node_id] = (asyncio.get_running_loop().time(), error)
            return
        self._failed.pop(node_id, None)
        self._gateways[node_id] = _Gateway(name, str(described.info["address"]))
        log.info("gateway_adopted" if left else "started", actor=name)
        self._watches.start(self._watch(node_id, name), f"watch-{name}")

    async def _watch(self, node_id: str, name: str) -> None:
        await self._fleet.gone(name)
        gateway = self._gateways.get(node_id)
        if not self._stopping and gateway is not None and gateway.name == name:
            log.warning("gateway_gone", gateway=name)
            del self._gateways[node_id]
            self._misses.pop(name, None)
            self._reconcile.wake()

    def _node_process_gone(self, name: str) -> None:
        self._misses.pop(name, None)
        self._reconcile.wake()

    # -- who is fit ----------------------------------------------------------------------------------------------

    async def _probe(self, name: str) -> None:
        """Ask a process for anything; one that has said nothing for several probes is ended, and so replaced."""
        try:
            silent = await self._fleet.describe(name) is None
        except WunderError as error:
            # It answers, but cannot start, as without its database: another one could not either.
            log.warning("not_started", actor=name, message=error.message)
            silent = False
        if not silent:
            self._misses.pop(name, None)
            return
        self._misses[name] += 1
        if self._misses[name] >= MISSES:
            log.error("hung", actor=name)
            del self._misses[name]
            await self._fleet.kill(name)
            self._reconcile.wake()

    async def _clear_leftovers(self) -> bool:
        """End what was left running and cannot serve as it is; whether there was any."""
        prefixes = (SESSION_ACTOR_PREFIX, GATEWAY_PREFIX, POOL_PREFIX, OUTBOX_PREFIX)
        names = [n for n in await self._fleet.names() if n in SINGLETONS or n.startswith(prefixes)]
        unfit = [
            (name, reason)
            for name, reason in zip(names, await asyncio.gather(*map(self._unfit, names)), strict=True)
            if reason
        ]
        for name, reason in unfit:
            log.warning("replaced", actor=name, reason=reason)
        await asyncio.gather(*(self._fleet.kill(name) for name, _ in unfit))
        return bool(unfit)

    async def _unfit(self, name: str) -> str:
        """Why a process that we find must not be adopted; empty if it may."""
        try:
            described = await self._fleet.describe(name)
        except WunderError as error:
            return error.message
        if described is None:
            return "no answer"
        if described.info.get("draining"):
            return "draining"
        return "" if described.info.get("settings") == self._fleet.settings_of(name) else "other settings"

    # -- the end -------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain: gateways send their clients away, sessions finish what runs, outboxes what is under way."""
        self._stopping = True
        await self._reconcile.stop()
        await self._watches.stop()
        gateways = await self._fleet.names(GATEWAY_PREFIX)
        await self._drain(gateways, grace_s=self._grace_s, timeout_s=5.0)
        # Pools first, within the same grace: what session actors run meanwhile ends in that time too.
        started_s = asyncio.get_running_loop().time()
        pools = await self._fleet.names(POOL_PREFIX)
        await self._drain(pools, grace_s=self._grace_s, timeout_s=self._grace_s + 5.0)
        spent_s = asyncio.get_running_loop().time() - started_s
        left_s = max(min(_LEAST_GRACE_S, self._grace_s), self._grace_s - spent_s)
        actors = await self._fleet.names(SESSION_ACTOR_PREFIX)
        await self._drain(actors, grace_s=left_s, timeout_s=left_s + 5.0)
        outboxes = await self._fleet.names(OUTBOX_PREFIX)
        await self._drain(outboxes, grace_s=min(_OUTBOX_GRACE_S, self._grace_s), timeout_s=_OUTBOX_GRACE_S + 5.0)
        for name in [*pools, *actors, *outboxes, *gateways, JANITOR, DIRECTORY]:
            await self._fleet.stop(name)
        # The directory replaces session actors for as long as it lives: what it still started has no session.
        for name in await self._fleet.names(SESSION_ACTOR_PREFIX):
            try:
                await self._fleet.kill(name)
            except WunderError as error:
                log.warning("not_ended", actor=name, message=error.message)

    async def _drain(self, names: list[str], *, grace_s: float, timeout_s: float) -> None:
        command = Drain(grace_s=grace_s)
        calls = [tell(self._fleet.actor(name), command, timeout_s=timeout_s) for name in names]
        for name, result in zip(names, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(result, WunderError):
                log.warning("drain_failed", actor=name, message=result.message)
