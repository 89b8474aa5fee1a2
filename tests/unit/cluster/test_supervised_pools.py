"""The supervisor and its pools: one on every node, replaced when it dies or hangs, never in the way of a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.cluster.fleet import pool_prefix
from actors.cluster.supervisor import MISSES, Supervisor
from tests.support.facts import eventually
from tests.unit.cluster.fake_fleet import FakeFleet

A, B = "aaaaaa01", "bbbbbb02"
LEFT = f"{pool_prefix(A)}left"
ACTOR = "session-actor-aaaaaa-left"


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet(A)


@pytest.fixture
async def supervisor(fleet: FakeFleet) -> AsyncIterator[Supervisor]:
    """Not started: tests call its rounds by hand."""
    supervisor = Supervisor(fleet, grace_s=1.0, retry_s=0.0)
    yield supervisor
    await supervisor.stop()


async def test_every_node_has_a_pool(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.node_ids = [A, B]
    await supervisor.start()
    assert (len(fleet.pools(A)), len(fleet.pools(B))) == (1, 1)
    fleet.started.clear()
    await supervisor.reconcile_once()
    assert not fleet.started


async def test_a_node_that_joins_gets_one(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.reconcile_once()
    fleet.node_ids = [A, B]
    await supervisor.reconcile_once()
    assert fleet.pools(B)


async def test_without_pools_there_are_none(fleet: FakeFleet) -> None:
    supervisor = Supervisor(fleet, grace_s=1.0, pools=False)
    await supervisor.start()
    assert not fleet.pools(A)
    await supervisor.stop()


async def test_pools_are_asked_after_in_every_round(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.reconcile_once()
    fleet.described.clear()
    await supervisor.reconcile_once()
    assert fleet.pools(A)[0] in fleet.described


async def test_a_pool_that_dies_is_replaced(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.start()
    (first,) = fleet.pools(A)
    fleet.remove(first)
    await eventually(lambda: fleet.pools(A), "another one is there")
    assert fleet.pools(A) != [first]
    assert not fleet.killed


async def test_a_pool_that_hangs_is_replaced(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.reconcile_once()
    (hung,) = fleet.pools(A)
    for _ in range(MISSES):
        fleet.silent = {hung}
        await supervisor.reconcile_once()
    assert fleet.killed == [hung]

    async def replaced() -> bool:
        await supervisor.reconcile_once()
        return fleet.pools(A) not in ([], [hung])

    await eventually(replaced, "another one is there")


async def test_a_pool_that_another_supervisor_has_left_is_adopted(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.add(LEFT)
    await supervisor.start()
    assert fleet.pools(A) == [LEFT]
    assert not fleet.killed
    fleet.remove(LEFT)
    await eventually(lambda: fleet.pools(A), "it is watched like any other")


@pytest.mark.parametrize("fault", ["draining", "settings", "silent", "broken"])
async def test_one_that_is_not_fit_is_replaced(fleet: FakeFleet, supervisor: Supervisor, fault: str) -> None:
    fleet.add(LEFT, draining=fault == "draining", settings="others" if fault == "settings" else "the settings")
    if fault in {"silent", "broken"}:
        getattr(fleet, fault).add(LEFT)
    await supervisor.start()
    assert (fleet.stopped if fault == "settings" else fleet.killed) == [LEFT]
    assert fleet.pools(A) not in ([], [LEFT])


async def test_a_pool_that_cannot_start_does_not_keep_gateways_from_starting(
    fleet: FakeFleet, supervisor: Supervisor
) -> None:
    fleet.node_ids = [A, B]
    fleet.refusing[pool_prefix(A)] = 1
    assert len(await supervisor.start()) == 2
    assert not fleet.pools(A)
    assert fleet.pools(B)
    await supervisor.reconcile_once()
    assert fleet.pools(A), "it is tried again"


async def test_a_pool_that_takes_its_time_holds_no_gateway_up(fleet: FakeFleet, supervisor: Supervisor) -> None:
    gate = fleet.hold[pool_prefix(A)] = asyncio.Event()
    round_ = asyncio.create_task(supervisor.reconcile_once())
    await eventually(lambda: fleet.gateways(A), "the gateway is there")
    assert not fleet.pools(A)
    gate.set()
    await round_
    assert fleet.pools(A)


async def test_a_pool_that_did_not_start_is_not_tried_again_at_once(fleet: FakeFleet) -> None:
    supervisor = Supervisor(fleet, grace_s=1.0, retry_s=3600.0)
    fleet.refusing[pool_prefix(A)] = 1
    for _ in range(2):
        await supervisor.reconcile_once()
    assert fleet.gateways(A)
    assert not fleet.pools(A)
    await supervisor.stop()


async def test_stopping_drains_pools_before_session_actors(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.add(ACTOR)
    await supervisor.start()
    (gateway,), (pool,) = fleet.gateways(A), fleet.pools(A)
    await supervisor.stop()
    assert fleet.told == [gateway, pool, ACTOR]
    assert fleet.stopped == [pool, ACTOR, gateway, "janitor", "directory"]
    assert not await fleet.names()
