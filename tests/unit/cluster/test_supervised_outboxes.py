"""The supervisor and its outboxes: one on every node, replaced when it dies or hangs, drained last."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.cluster.fleet import outbox_prefix
from actors.cluster.supervisor import MISSES, Supervisor
from tests.support.facts import eventually
from tests.unit.cluster.fake_fleet import FakeFleet

A, B = "aaaaaa01", "bbbbbb02"
LEFT = f"{outbox_prefix(A)}left"


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet(A)


@pytest.fixture
async def supervisor(fleet: FakeFleet) -> AsyncIterator[Supervisor]:
    """Not started: tests call its rounds by hand."""
    supervisor = Supervisor(fleet, grace_s=1.0, retry_s=0.0, outboxes=True)
    yield supervisor
    await supervisor.stop()


async def test_every_node_has_an_outbox_beside_its_pool(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.node_ids = [A, B]
    await supervisor.start()
    for node_id in (A, B):
        assert len(fleet.outboxes(node_id)) == len(fleet.pools(node_id)) == 1
    fleet.started.clear()
    fleet.described.clear()
    await supervisor.reconcile_once()
    assert not fleet.started
    assert {*fleet.outboxes(A), *fleet.outboxes(B)} <= set(fleet.described)


async def test_without_outboxes_there_are_none(fleet: FakeFleet) -> None:
    supervisor = Supervisor(fleet, grace_s=1.0)
    await supervisor.start()
    assert not fleet.outboxes(A)
    await supervisor.stop()


async def test_one_that_dies_is_replaced_and_the_pool_is_not(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.start()
    (first,), pools = fleet.outboxes(A), fleet.pools(A)
    fleet.remove(first)

    await eventually(lambda: fleet.outboxes(A) not in ([], [first]), "another one is there")
    assert fleet.pools(A) == pools


async def test_one_that_hangs_is_replaced(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.reconcile_once()
    (hung,) = fleet.outboxes(A)
    for _ in range(MISSES):
        fleet.silent = {hung}
        await supervisor.reconcile_once()
    assert fleet.killed == [hung]


async def test_one_with_other_settings_is_replaced_and_a_fit_one_adopted(fleet: FakeFleet) -> None:
    for settings, kept in (("others", False), ("the settings", True)):
        fleet.add(LEFT, settings=settings)
        supervisor = Supervisor(fleet, grace_s=1.0, retry_s=0.0, outboxes=True)
        await supervisor.start()
        assert (fleet.outboxes(A) == [LEFT]) is kept
        assert len(fleet.outboxes(A)) == 1
        assert fleet.told == ([] if kept else [LEFT]), "it may end what is under way"
        await supervisor.stop()
        fleet.told.clear()


async def test_another_version_is_replaced_node_by_node(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.node_ids = [A, B]
    other = f"{outbox_prefix(B)}left"
    for name in (LEFT, other):
        fleet.add(name, settings="of another version")
    seen: list[int] = []
    stop = fleet.stop

    async def watched(name: str) -> None:
        await stop(name)
        seen.append(len(fleet.outboxes(A)) + len(fleet.outboxes(B)))

    fleet.stop = watched  # type: ignore[method-assign]
    await supervisor.start()
    assert fleet.told == [LEFT, other]
    assert seen == [1, 1], "somebody sends at any time"
    assert len(fleet.outboxes(A)) == len(fleet.outboxes(B)) == 1


async def test_stopping_drains_outboxes_after_everybody_who_may_record(
    fleet: FakeFleet, supervisor: Supervisor
) -> None:
    await supervisor.start()
    (gateway,), (pool,), (outbox,) = fleet.gateways(A), fleet.pools(A), fleet.outboxes(A)
    await supervisor.stop()
    assert fleet.told == [gateway, pool, outbox]
    assert fleet.stopped == [pool, outbox, gateway, "janitor", "directory"]
