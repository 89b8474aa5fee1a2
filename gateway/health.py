"""Liveness, readiness, metrics, and the summary for operators."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

from actors.clock import Clock
from actors.directory import JANITOR
from actors.errors import ServiceUnavailable, WunderError
from actors.handles import DirectoryHandle, Reach, ask
from actors.loop import Loop
from actors.messages import Describe
from actors.metrics import GatewayMetrics
from actors.replies import Description
from gateway.auth import Auth
from gateway.connections import Connections
from gateway.http_common import json_response, ok
from gateway.passwords import PasswordHasher
from gateway.topics import Topics
from gateway.waiting import KEPT_S, OutboxStates, Waiting
from storage.store import AsyncStorageBackend

_DESCRIBE_TIMEOUT_S = 2.0
_LAG_INTERVAL_S = 0.1


class Health:
    """Answers probes, and gathers numbers when it is asked for them."""

    def __init__(
        self,
        *,
        gateway: str,
        node_id: str,
        store: AsyncStorageBackend,
        auth: Auth,
        clock: Clock,
        connections: Connections,
        topics: Topics,
        hasher: PasswordHasher,
        directory: DirectoryHandle,
        reach: Reach,
    ) -> None:
        self.metrics = GatewayMetrics()
        self._gateway = gateway
        self._node_id = node_id
        self._store = store
        self._auth = auth
        self._clock = clock
        self._connections = connections
        self._topics = topics
        self._hasher = hasher
        self._directory = directory
        self._reach = reach
        self._counted: dict[tuple[str, ...], float] = {}
        self._scrape: asyncio.Task[bytes] | None = None
        self._scraped_s = float("-inf")
        self._waiting = Waiting(store, clock)
        self._lag_s = 0.0
        self._due_s = 0.0
        self._lag_loop = Loop("loop-lag", self._measure_lag, interval_s=_LAG_INTERVAL_S, jitter=0.0)

    def start(self) -> None:
        self._lag_loop.start()

    async def stop(self) -> None:
        await self._lag_loop.stop()
        if self._scrape is not None:
            self._scrape.cancel()
            await asyncio.wait([self._scrape])

    def observe(self, route: str, method: str, status: str, seconds: float) -> None:
        """One HTTP request has ended."""
        self.metrics.requests.labels(route, method, status).observe(seconds)

    async def healthz(self, request: web.Request) -> web.Response:
        """This process answers."""
        return json_response({"ok": True, "status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        """This gateway can serve: it is not draining, the database answers, and the directory is not rebuilding."""
        if self._connections.draining:
            raise ServiceUnavailable("draining", retry_after_s=5.0)
        checks = {"storage": self._store.ping(), "directory": self._directory_is_ready()}
        failed = []
        for name, check in checks.items():
            try:
                async with asyncio.timeout(_DESCRIBE_TIMEOUT_S):
                    await check
            except (WunderError, TimeoutError):
                failed.append(name)
        if failed:
            raise ServiceUnavailable(f"not ready: {', '.join(failed)}", retry_after_s=1.0)
        return json_response({"ok": True, "status": "ready"})

    async def prometheus(self, request: web.Request) -> web.Response:
        """Everything this node knows, in Prometheus' text format."""
        now_s = self._clock.monotonic_s()
        if self._scrape is None or (self._scrape.done() and now_s - self._scraped_s >= KEPT_S):
            self._scrape = asyncio.create_task(self._gather(), name="scrape")
        body = await asyncio.shield(self._scrape)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _gather(self) -> bytes:
        described, queue, outbox = await asyncio.gather(
            self._describe_all(), self._waiting.tasks.get(), self._waiting.outbox.get()
        )
        self._fill()
        for state, (tasks, oldest_s) in queue.items():
            self.metrics.tasks.labels(state).set(tasks)
            self.metrics.tasks_oldest.labels(state).set(oldest_s)
        self.metrics.background.update(described)
        for labels, (items, oldest_s) in outbox.items():
            self.metrics.outbox.labels(*labels).set(items)
            self.metrics.outbox_oldest.labels(*labels).set(oldest_s)
        for name, description in described.items():
            for number, value in description.gauges.items():
                self.metrics.process.labels(name, number).set(value)
        body = generate_latest(self.metrics.registry)
        self._scraped_s = self._clock.monotonic_s()
        return body

    async def summary(self, request: web.Request) -> web.Response:
        """Nodes, gateways, actors, pools, permits and queues, for `wunder status`."""
        self._auth.require_admin(await self._auth.authenticate(request))
        described, queue, outbox = await asyncio.gather(
            self._describe_all(), self._waiting.tasks.get(), self._waiting.outbox.get()
        )
        directory, janitor = described.pop("directory", None), described.pop(JANITOR, None)
        known = directory.info["actors"] if directory else []
        pools = {actor["name"] for actor in known if actor.get("pool")}
        outboxes = {o["name"] for o in directory.info.get("outboxes", ())} if directory else set()
        actors = {name: {**description.gauges, **description.info} for name, description in described.items()}
        return ok(
            {
                "gateway": {
                    "name": self._gateway,
                    "node_id": self._node_id,
                    "connections": len(self._connections),
                    "topics": len(self._topics),
                    "subscriptions": self._topics.subscriptions,
                    "statements": dict(self._store.statements()),
                },
                "directory": {**directory.gauges, **directory.info} if directory else None,
                "janitor": {**janitor.gauges, **janitor.info} if janitor else None,
                "actors": {name: actor for name, actor in actors.items() if name not in pools | outboxes},
                "pools": {name: actor for name, actor in actors.items() if name in pools},
                "outboxes": {name: actor for name, actor in actors.items() if name in outboxes},
                "tasks": {
                    state: {"tasks": tasks, "oldest_age_s": round(oldest_s, 3)}
                    for state, (tasks, oldest_s) in queue.items()
                },
                "outbox": _by_channel(outbox),
            }
        )

    async def _describe_directory(self) -> Description:
        return await ask(self._directory.call, Describe(), Description, timeout_s=_DESCRIBE_TIMEOUT_S)

    async def _directory_is_ready(self) -> None:
        if not (await self._describe_directory()).info["ready"]:
            raise ServiceUnavailable("the directory is rebuilding")

    async def _describe_all(self) -> dict[str, Description]:
        described: dict[str, Description] = {}
        with contextlib.suppress(WunderError):
            described["directory"] = await self._describe_directory()
            info = described["directory"].info
            names = [JANITOR, *(a["name"] for a in (*info["actors"], *info.get("outboxes", ())))]

            async def describe(name: str) -> None:
                with contextlib.suppress(WunderError):
                    described[name] = await ask(
                        self._reach.actor(name), Describe(), Description, timeout_s=_DESCRIBE_TIMEOUT_S
                    )

            await asyncio.gather(*(describe(name) for name in names))
        return described

    def _fill(self) -> None:
        metrics, topics = self.metrics, self._topics
        for gauge in (metrics.process, metrics.tasks, metrics.tasks_oldest, metrics.outbox, metrics.outbox_oldest):
            gauge.clear()
        for kind in ("websocket", "sse"):
            metrics.connections.labels(kind).set(self._connections.count(kind))
        metrics.topics.set(len(topics))
        metrics.subscriptions.set(topics.subscriptions)
        metrics.hash_busy.set(self._hasher.busy)
        metrics.hash_queued.set(self._hasher.queued)
        metrics.loop_lag.set(self._lag_s)
        self._lag_s = 0.0
        self._count(metrics.line_batches, (), topics.batches)
        self._count(metrics.line_events, (), topics.events)
        self._count(metrics.pages, ("owner",), topics.pages_owner)
        self._count(metrics.pages, ("store",), topics.pages_store)
        self._count_each(metrics.statements, self._store.statements())

    def _count_each(self, counter: Counter, values: Mapping[str, int]) -> None:
        for label, value in values.items():
            self._count(counter, (label,), value)

    def _count(self, counter: Counter, labels: tuple[str, ...], value: float) -> None:
        """Bring a counter up to a total that is kept elsewhere."""
        key = (str(id(counter)), *labels)
        child: Any = counter.labels(*labels) if labels else counter
        child.inc(value - self._counted.get(key, 0))
        self._counted[key] = value

    async def _measure_lag(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._due_s:
            self._lag_s = max(self._lag_s, now_s - self._due_s)
        self._due_s = now_s + _LAG_INTERVAL_S


def _by_channel(outbox: OutboxStates) -> dict[str, dict[str, dict[str, float]]]:
    shown: dict[str, dict[str, dict[str, float]]] = {}
    for (channel, state), (items, oldest_s) in outbox.items():
        shown.setdefault(channel, {})[state] = {"deliveries": items, "oldest_age_s": round(oldest_s, 3)}
    return shown
