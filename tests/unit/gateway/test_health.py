"""Readiness and metrics of a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from actors.errors import ServiceUnavailable
from actors.handles import DirectoryHandle
from actors.histogram import Durations
from actors.messages import AnyCommand, Describe
from actors.replies import Description, Reply
from gateway.health import Health
from storage.errors import StorageUnavailable
from tests.support.doubles import FakeReach
from tests.support.manual_clock import ManualClock


class Bench:
    """Health beside a directory with one actor, and a janitor; `gate` holds the directory's answers up."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.reach = FakeReach()
        self.ready = True
        self.actors = [{"name": "actor-1", "pool": False}]
        self.info: dict[str, Any] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.reach.answers["directory"] = self._directory
        self.reach.answers["actor-1"] = lambda _: Description(gauges={"turns_running": 3.0})
        self.reach.answers["janitor"] = lambda _: Description(gauges={"rows_expired": 5.0})
        self.states: dict[str, tuple[int, int]] | StorageUnavailable = {}
        self.states_asked = 0
        self.outbox: dict[tuple[str, str], tuple[int, int]] = {}
        store = SimpleNamespace(
            ping=self._ping, statements=dict, queue_states=self._queue_states, outbox_states=self._outbox_states
        )
        self.connections: Any = _Sized(draining=False, count=lambda kind: 0)
        self.health = Health(
            gateway="gateway-1",
            node_id="node",
            store=cast(Any, store),
            auth=cast(Any, SimpleNamespace(authenticate=self._authenticate, require_admin=lambda _: None)),
            clock=self.clock,
            connections=self.connections,
            topics=cast(Any, _Sized(subscriptions=0, batches=0, events=0, pages_owner=0, pages_store=0)),
            hasher=cast(Any, SimpleNamespace(busy=0, queued=0)),
            directory=DirectoryHandle(self.reach.actor("directory")),
            reach=self.reach,
        )

    async def _ping(self) -> None: ...
    async def _authenticate(self, request: web.Request) -> None: ...

    async def _queue_states(self) -> dict[str, tuple[int, int]]:
        self.states_asked += 1
        if isinstance(self.states, StorageUnavailable):
            raise self.states
        return self.states

    async def _outbox_states(self) -> dict[tuple[str, str], tuple[int, int]]:
        return self.outbox

    async def _directory(self, command: AnyCommand) -> Reply:
        await self.gate.wait()
        return Description(gauges={"permits_held": 1.0}, info=self.info | {"ready": self.ready, "actors": self.actors})

    @property
    def asked(self) -> int:
        return len(self.reach.heard("directory", Describe))

    async def metrics(self) -> str:
        return str((await self.health.prometheus(_request())).body, "utf-8")  # type: ignore[arg-type]

    async def summary(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((await self.health.summary(_request())).body)["data"]  # type: ignore[arg-type]
        return data


class _Sized(SimpleNamespace):
    def __len__(self) -> int:
        return 0


def _request() -> web.Request:
    return make_mocked_request("GET", "/metrics")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.health.stop()


async def test_it_is_ready_when_the_directory_is(bench: Bench) -> None:
    assert (await bench.health.readyz(_request())).status == 200


async def test_it_is_not_ready_while_the_directory_rebuilds(bench: Bench) -> None:
    bench.ready = False
    with pytest.raises(ServiceUnavailable, match="not ready: directory"):
        await bench.health.readyz(_request())


async def test_it_is_not_ready_while_it_drains(bench: Bench) -> None:
    bench.connections.draining = True
    with pytest.raises(ServiceUnavailable, match="draining"):
        await bench.health.readyz(_request())


async def test_metrics_tell_of_every_process(bench: Bench) -> None:
    text = await bench.metrics()
    assert 'wunder_process{number="permits_held",process="directory"} 1.0' in text
    assert 'wunder_process{number="turns_running",process="actor-1"} 3.0' in text
    assert 'wunder_process{number="rows_expired",process="janitor"} 5.0' in text


async def test_scrapes_at_the_same_time_share_one_gathering(bench: Bench) -> None:
    bench.gate.clear()
    scrapes = [asyncio.create_task(bench.metrics()) for _ in range(20)]
    await asyncio.sleep(0)
    scrapes[0].cancel()
    bench.gate.set()
    texts = await asyncio.gather(*scrapes[1:])
    assert bench.asked == 1
    assert len(set(texts)) == 1


async def test_processes_are_asked_once_a_second_at_most(bench: Bench) -> None:
    for _ in range(3):
        await bench.metrics()
        bench.clock.advance(0.4)
    assert bench.asked == 1
    await bench.metrics()
    assert bench.asked == 2


async def test_a_process_that_has_left_is_left_out(bench: Bench) -> None:
    await bench.metrics()
    bench.reach.dead.add("actor-1")
    bench.clock.advance(1.0)
    assert "actor-1" not in await bench.metrics()


async def test_stopping_ends_a_gathering(bench: Bench) -> None:
    bench.gate.clear()
    scrape = asyncio.create_task(bench.metrics())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await bench.health.stop()
    with pytest.raises(asyncio.CancelledError):
        await scrape


async def test_how_many_tasks_wait_and_since_when(bench: Bench) -> None:
    bench.states = {"queued": (4, bench.clock.now_us() - 2_500_000)}
    text = await bench.metrics()
    assert 'wunder_tasks{state="queued"} 4.0' in text
    assert 'wunder_tasks_oldest_age_seconds{state="queued"} 2.5' in text
    assert 'wunder_tasks{state="running"} 0.0' in text
    assert (await bench.summary())["tasks"] == {
        "queued": {"tasks": 4, "oldest_age_s": 2.5},
        "waiting": {"tasks": 0, "oldest_age_s": 0.0},
        "running": {"tasks": 0, "oldest_age_s": 0.0},
    }


async def test_the_queue_is_looked_at_once_a_second_at_most(bench: Bench) -> None:
    await asyncio.gather(bench.metrics(), *(bench.summary() for _ in range(5)))
    assert bench.states_asked == 1
    bench.clock.advance(1.0)
    await bench.summary()
    assert bench.states_asked == 2


async def test_without_the_database_nothing_is_said_of_the_queue(bench: Bench) -> None:
    bench.states = {"queued": (4, 0)}
    await bench.metrics()
    bench.states = StorageUnavailable("away")
    bench.clock.advance(1.0)
    text = await bench.metrics()
    assert "wunder_tasks{" not in text
    assert 'process="actor-1"' in text
    assert (await bench.summary())["tasks"] == {}


async def test_the_summary_tells_of_pools(bench: Bench) -> None:
    bench.actors.append({"name": "pool-1", "pool": True})
    bench.reach.answers["pool-1"] = lambda _: Description(gauges={"pool_slots": 32.0, "pool_claimed": 7.0})
    summary = await bench.summary()
    assert summary["pools"] == {"pool-1": {"pool_slots": 32.0, "pool_claimed": 7.0}}
    assert list(summary["actors"]) == ["actor-1"]


async def test_the_numbers_of_pools_are_histograms_and_counters_by_node() -> None:
    bench = Bench()
    runs = Durations()
    runs.add(0.3)
    described = Description(
        gauges={"pool_claims": 7.0, "pool_slots_in_use": 2.0},
        info={"node_id": "node-1"},
        histograms={"wunder_task_run_seconds": runs.histogram()},
    )
    bench.reach.answers["actor-1"] = lambda _: described
    text = await bench.metrics()
    assert 'wunder_task_run_seconds_bucket{le="0.25",node="node-1"} 0.0' in text
    assert 'wunder_task_run_seconds_bucket{le="0.5",node="node-1"} 1.0' in text
    assert 'wunder_task_claims_total{node="node-1"} 7.0' in text
    assert 'wunder_task_slots_in_use{node="node-1"} 2.0' in text


async def test_the_outbox_by_channel_and_state(bench: Bench) -> None:
    now_us = bench.clock.now_us()
    bench.outbox = {
        ("webhook", "dead"): (2, now_us - 7_000_000),
        ("strange", "pending"): (3, now_us - 1_000_000),
        ("stranger", "pending"): (1, now_us - 2_000_000),
    }
    text = await bench.metrics()
    assert 'wunder_outbox{channel="webhook",state="dead"} 2.0' in text
    assert 'wunder_outbox{channel="webhook",state="pending"} 0.0' in text
    assert 'wunder_outbox_oldest_age_seconds{channel="webhook",state="dead"} 7.0' in text
    assert 'wunder_outbox{channel="other",state="pending"} 4.0' in text
    assert 'wunder_outbox_oldest_age_seconds{channel="other",state="pending"} 2.0' in text
    assert (await bench.summary())["outbox"]["webhook"]["dead"] == {"deliveries": 2, "oldest_age_s": 7.0}


async def test_the_summary_tells_of_outboxes(bench: Bench) -> None:
    bench.info = {"outboxes": [{"name": "outbox-1", "node_id": "node-a"}]}
    breakers = [{"channel": "webhook", "account": "https://a", "for_s": 3.0}]
    bench.reach.answers["outbox-1"] = lambda _: Description(
        gauges={"outbox_breakers_open": 1.0}, info={"breakers": breakers}
    )
    summary = await bench.summary()
    assert summary["outboxes"] == {"outbox-1": {"outbox_breakers_open": 1.0, "breakers": breakers}}
    assert list(summary["actors"]) == ["actor-1"]
    assert 'wunder_process{number="outbox_breakers_open",process="outbox-1"} 1.0' in await bench.metrics()
