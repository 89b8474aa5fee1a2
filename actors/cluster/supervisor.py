"""Keeps the right processes alive: one directory, one janitor, and on every node a gateway, a pool and an outbox.

Each round starts what is missing and asks everybody for a `Describe`: that starts the service of a process that Ray
has restarted (nobody may ever call it otherwise), and finds the ones that hang, which Ray never notices.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from actors.background import Background
from actors.cluster.fleet import (
    GATEWAY_PREFIX,
    SESSION_ACTOR_PREFIX,
    Fleet,
    gateway_prefix,
    outbox_prefix,
    pool_prefix,
    session_actor_prefix,
)
from actors.cluster.launcher import OUTBOX_PREFIX, POOL_PREFIX
from actors.cluster.per_node import Failures, PerNode, missing
from actors.cluster.services import DIRECTORY, JANITOR
from actors.errors import ServiceUnavailable, WunderError
from actors.handles import tell
from actors.logs import log
from actors.loop import Loop
from actors.messages import Drain, DrainNode
from actors.replies import Description

SINGLETONS = (DIRECTORY, JANITOR)
MISSES = 3
"""Probes without an answer, one after the other, that make a process a hung one."""
_START_TRIES = 3
_LEAST_GRACE_S = 1.0
_TELL_S = 5.0
_OUTBOX_GRACE_S = 5.0
"""What is not sent by then is sent by another outbox, or after the next start."""
_OUTDATED = "other settings"
_PREFIXES = (GATEWAY_PREFIX, POOL_PREFIX, SESSION_ACTOR_PREFIX, OUTBOX_PREFIX)
"""Of all but the singletons, in the order in which they are drained."""


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
        self._drained: set[str] = set()
        self._emptying: set[str] = set()
        self._incarnation = ""
        self._where: dict[str, str] = {}
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
        if DIRECTORY in await self._fleet.names():
            await self._probe(DIRECTORY)  # it knows which nodes are drained
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
        found = await self._fleet.nodes()
        if not found:
            raise ServiceUnavailable("the cluster has no node with CPUs")
        nodes = [node for node in found if node.node_id not in self._drained]
        running = await self._fleet.names()
        failures: list[BaseException | None] = []
        for name in SINGLETONS:
            if name not in running:
                failures.append(await self._start_singleton(name, (nodes or found)[0].node_id))
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
        await self._empty_drained(any(node.node_id not in self._drained for node in found))
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
            described = await self._fleet.describe(name)
            silent = described is None
            if described is not None and name in SINGLETONS:
                self._where[name] = str(described.info.get("node_id"))
                if name == DIRECTORY:
                    await self._learn_drained(described)
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
        """End what was left running and cannot serve as it is; whether there was any.

        What serves well, but with other settings or another version, is drained and replaced node by node.
        """
        names = [n for n in await self._fleet.names() if n in SINGLETONS or n.startswith(_PREFIXES)]
        unfit = [
            (name, reason)
            for name, reason in zip(names, await asyncio.gather(*map(self._unfit, names)), strict=True)
            if reason
        ]
        for name, reason in unfit:
            log.warning("replaced", actor=name, reason=reason)
        outdated = {name for name, reason in unfit if reason == _OUTDATED and name not in SINGLETONS}
        await asyncio.gather(*(self._fleet.kill(name) for name, _ in unfit if name not in outdated))
        if outdated:
            await self._roll(outdated)
        return bool(unfit)

    async def _roll(self, outdated: set[str]) -> None:
        """The singletons first, then one node after the other, so that the others take its readers and its work."""
        nodes = await self._fleet.nodes()
        for name in SINGLETONS:
            if name not in await self._fleet.names():
                await self._start_singleton(name, nodes[0].node_id)
        for node in nodes:
            node_id = node.node_id
            old = {name for name in outdated if name.startswith(_prefixes(node_id))}
            if not old:
                continue
            await self._drain_and_end(_prefixes(node_id), old)
            if any(name.startswith(gateway_prefix(node_id)) for name in old):
                await self._ensure_gateway(node_id, [])
            for kind in self._per_node:
                if kind.has(node_id, old):
                    await kind.ensure(node_id, [])

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
        return "" if described.info.get("settings") == self._fleet.settings_of(name) else _OUTDATED

    # -- drained nodes ---------------------------------------------------------------------------------------------

    async def _learn_drained(self, described: Description) -> None:
        """The directory says which; one that has restarted is told again."""
        incarnation = str(described.info.get("incarnation", ""))
        nodes = described.info.get("nodes", ())
        if self._incarnation and incarnation != self._incarnation:
            for node_id in self._drained & {node["node_id"] for node in nodes}:
                await tell(self._fleet.actor(DIRECTORY), DrainNode(node_id=node_id), timeout_s=_TELL_S)
        else:
            self._drained = {str(node["node_id"]) for node in nodes if node["drained"]}
        self._incarnation = incarnation

    async def _empty_drained(self, others: bool) -> None:
        """Empty what is drained; again, if something was still being started there. `others`: nodes are left."""
        running = await self._fleet.names()
        for node_id in self._drained - self._emptying:
            has_singleton = others and node_id in self._where.values()
            if has_singleton or any(name.startswith(_prefixes(node_id)) for name in running):
                self._emptying.add(node_id)
                self._watches.start(self._empty(node_id, others), f"drain-{node_id}")

    async def _empty(self, node_id: str, others: bool) -> None:
        """Hand a drained node's sessions over and end its processes."""
        try:
            self._gateways.pop(node_id, None)
            for kind in self._per_node:
                kind.processes.pop(node_id, None)
            await self._drain_and_end(_prefixes(node_id))
            for name in [name for name, where in self._where.items() if where == node_id and others]:
                log.info("moved", actor=name)
                del self._where[name]
                await self._fleet.stop(name)
                self._reconcile.wake()
            log.info("node_is_empty", node=node_id)
        finally:
            self._emptying.discard(node_id)

    # -- the end -------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Stop looking after the processes; they go on without us."""
        self._stopping = True
        await self._reconcile.stop()
        await self._watches.stop()

    async def stop(self) -> None:
        """Drain: gateways send their clients away, sessions finish what runs, outboxes what is under way."""
        await self.leave()
        await self._drain_and_end(_PREFIXES)
        for name in (JANITOR, DIRECTORY):
            await self._fleet.stop(name)
        # The directory replaces session actors for as long as it lives: what it still started has no session.
        for name in await self._fleet.names(SESSION_ACTOR_PREFIX):
            try:
                await self._fleet.kill(name)
            except WunderError as error:
                log.warning("not_ended", actor=name, message=error.message)

    async def _drain_and_end(self, prefixes: tuple[str, str, str, str], only: Collection[str] | None = None) -> None:
        """Those whose names begin so, in the order of `_PREFIXES`; of them `only` these, if given."""
        gateway, pool, actor, outbox = prefixes
        gateways = await self._named(gateway, only)
        await self._drain(gateways, grace_s=self._grace_s, timeout_s=5.0)
        # Pools first, within the same grace: what session actors run meanwhile ends in that time too.
        started_s = asyncio.get_running_loop().time()
        pools = await self._named(pool, only)
        await self._drain(pools, grace_s=self._grace_s, timeout_s=self._grace_s + 5.0)
        spent_s = asyncio.get_running_loop().time() - started_s
        left_s = max(min(_LEAST_GRACE_S, self._grace_s), self._grace_s - spent_s)
        actors = await self._named(actor, only)
        await self._drain(actors, grace_s=left_s, timeout_s=left_s + 5.0)
        # After everybody who may record something to be sent.
        outboxes = await self._named(outbox, only)
        await self._drain(outboxes, grace_s=min(_OUTBOX_GRACE_S, self._grace_s), timeout_s=_OUTBOX_GRACE_S + 5.0)
        for name in [*pools, *actors, *outboxes, *gateways]:
            await self._fleet.stop(name)

    async def _named(self, prefix: str, only: Collection[str] | None) -> list[str]:
        return [name for name in await self._fleet.names(prefix) if only is None or name in only]

    async def _drain(self, names: list[str], *, grace_s: float, timeout_s: float) -> None:
        command = Drain(grace_s=grace_s)
        calls = [tell(self._fleet.actor(name), command, timeout_s=timeout_s) for name in names]
        for name, result in zip(names, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(result, WunderError):
                log.warning("drain_failed", actor=name, message=result.message)


def _prefixes(node_id: str) -> tuple[str, str, str, str]:
    """How the names of a node's processes begin, in the order of `_PREFIXES`."""
    return gateway_prefix(node_id), pool_prefix(node_id), session_actor_prefix(node_id), outbox_prefix(node_id)
