"""A drained node: the directory says which, the supervisor empties it, moves the singletons, and keeps it empty."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.cluster.fleet import pool_prefix
from actors.cluster.supervisor import Supervisor
from actors.messages import Drain, DrainNode
from tests.support.facts import eventually
from tests.unit.cluster.fake_fleet import FakeFleet

A, B = "aaaaaa01", "bbbbbb02"
ACTOR, OTHER = "session-actor-aaaaaa-1", "session-actor-bbbbbb-1"


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet(A, B)


@pytest.fixture
async def supervisor(fleet: FakeFleet) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(fleet, grace_s=1.0, retry_s=0.0, outboxes=True)
    await supervisor.reconcile_once()
    for name in (ACTOR, OTHER):
        fleet.add(name)
    yield supervisor
    await supervisor.stop()


async def drained(fleet: FakeFleet, supervisor: Supervisor, node_id: str) -> None:
    fleet.drained.add(node_id)
    await supervisor.reconcile_once()
    await eventually(lambda: not processes(fleet, node_id), "the node is empty")


def processes(fleet: FakeFleet, node_id: str) -> list[str]:
    return [*fleet.gateways(node_id), *fleet.pools(node_id), *fleet.outboxes(node_id)]


async def test_its_processes_are_drained_and_ended_in_order_and_no_others(
    fleet: FakeFleet, supervisor: Supervisor
) -> None:
    gateway, pool, outbox = processes(fleet, A)
    fleet.on = B
    await drained(fleet, supervisor, A)
    await eventually(lambda: fleet.stopped == [pool, ACTOR, outbox, gateway], "these and in this order")
    assert fleet.told == [gateway, pool, ACTOR, outbox]
    assert all(isinstance(command, Drain) for command in fleet.commands)
    assert len(processes(fleet, B)) == 3
    assert OTHER in await fleet.names()


async def test_nothing_is_started_there_until_it_is_taken_back(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.on = B
    await drained(fleet, supervisor, A)
    fleet.started.clear()
    for _ in range(3):
        await supervisor.reconcile_once()
    assert not fleet.started
    fleet.drained.clear()
    for _ in range(2):
        await supervisor.reconcile_once()
    assert len(processes(fleet, A)) == 3


async def test_the_singletons_move_off_it(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await drained(fleet, supervisor, A)
    await eventually(lambda: {"directory", "janitor"} <= set(fleet.stopped), "they have left")
    fleet.started.clear()
    fleet.on = B
    await supervisor.reconcile_once()
    assert {"directory", "janitor"} <= set(fleet.started)


async def test_the_last_node_keeps_them(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.drained = {B}
    await drained(fleet, supervisor, A)
    await eventually(lambda: fleet.stopped.count(ACTOR) == 1, "it is empty")
    await supervisor.reconcile_once()
    assert not {"directory", "janitor"} & set(fleet.stopped)


async def test_a_directory_that_has_forgotten_is_told_again(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.on = B
    await drained(fleet, supervisor, A)
    fleet.drained.clear()
    fleet.incarnation = "directory_2"
    fleet.add(late := f"{ACTOR}-late")
    fleet.commands.clear()
    await supervisor.reconcile_once()
    assert [c for c in fleet.commands if isinstance(c, DrainNode)] == [DrainNode(node_id=A)]
    await eventually(lambda: late in fleet.stopped, "what it has placed there meanwhile is ended too")
    assert not [name for name in await fleet.names() if name.startswith(pool_prefix(A))]


async def test_what_was_still_being_started_there_is_ended_too(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.on = B
    await drained(fleet, supervisor, A)
    fleet.add(late := f"{ACTOR}-late")
    await supervisor.reconcile_once()
    await eventually(lambda: late in fleet.stopped, "the directory had begun to start it before the drain")


async def test_a_new_supervisor_learns_it(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.on = B
    await drained(fleet, supervisor, A)
    await supervisor.leave()
    other = Supervisor(fleet, grace_s=1.0, retry_s=0.0, outboxes=True)
    await other.reconcile_once()
    await eventually(lambda: not processes(fleet, A), "it ends what it had started there")
    await other.stop()


async def test_leaving_ends_nothing(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.leave()
    assert not fleet.stopped
    assert not fleet.told
