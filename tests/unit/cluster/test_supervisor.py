"""The supervisor: what it starts, adopts, probes and replaces (pools: test_supervised_pools.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.cluster.fleet import Fleet
from actors.cluster.supervisor import MISSES, Supervisor
from actors.errors import ServiceUnavailable
from tests.support.facts import eventually
from tests.unit.cluster.fake_fleet import FakeFleet

A, B, C = "aaaaaa01", "bbbbbb02", "cccccc03"
LEFT = f"gateway-{A[:6]}-left"
ACTOR = "session-actor-aaaaaa-left"


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet(A)


def supervisor_of(fleet: Fleet, retry_s: float = 0.0) -> Supervisor:
    return Supervisor(fleet, grace_s=1.0, retry_s=retry_s, pools=False)


@pytest.fixture
async def supervisor(fleet: FakeFleet) -> AsyncIterator[Supervisor]:
    """Not started: tests call its rounds by hand."""
    supervisor = supervisor_of(fleet)
    yield supervisor
    await supervisor.stop()


async def test_it_starts_the_singletons_and_a_gateway_on_every_node(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.node_ids = [A, B]
    addresses = await supervisor.start()
    assert fleet.started[:2] == ["directory", "janitor"]
    assert addresses == [f"http://{name}" for name in (*fleet.gateways(A), *fleet.gateways(B))]
    assert len(addresses) == 2


async def test_every_round_asks_after_everybody(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.reconcile_once()
    fleet.described.clear()
    await supervisor.reconcile_once()
    assert sorted(fleet.described) == sorted(["directory", "janitor", *fleet.gateways(A)])


async def test_a_probe_that_hangs_does_not_hold_up_the_round(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.reconcile_once()
    fleet.hold["directory"] = asyncio.Event()
    fleet.node_ids = [A, B]
    fleet.described.clear()
    round_ = asyncio.create_task(supervisor.reconcile_once())
    await eventually(lambda: fleet.gateways(B), "the new node has its gateway")
    await eventually(lambda: "janitor" in fleet.described, "the janitor was asked")
    assert not round_.done()
    fleet.hold.pop("directory").set()
    await round_


@pytest.mark.parametrize("name", ["directory", "janitor", "gateway"])
async def test_who_is_silent_for_several_probes_is_replaced(
    fleet: FakeFleet, supervisor: Supervisor, name: str
) -> None:
    await supervisor.reconcile_once()
    hung = fleet.gateways(A)[0] if name == "gateway" else name
    for _ in range(MISSES - 1):
        fleet.silent = {hung}
        await supervisor.reconcile_once()
    fleet.silent.clear()
    await supervisor.reconcile_once()
    assert not fleet.killed, "an answer in between counts"
    for _ in range(MISSES):
        fleet.silent = {hung}
        await supervisor.reconcile_once()
    assert fleet.killed == [hung]
    fleet.started.clear()

    async def replaced() -> bool:
        await supervisor.reconcile_once()
        return len(fleet.started) == 1 and fleet.started[0].startswith(name)

    await eventually(replaced, "another one is there")


async def test_who_answers_that_it_cannot_start_is_left_to_try_again(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.reconcile_once()
    fleet.broken = {"directory"}
    for _ in range(MISSES + 1):
        await supervisor.reconcile_once()
    assert not fleet.killed


async def test_a_node_that_fails_does_not_keep_the_others_from_theirs(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.node_ids = [A, B, C]
    fleet.refusing[B] = 1
    assert len(await supervisor.start()) == 2
    assert not fleet.gateways(B)
    await supervisor.reconcile_once()
    assert fleet.gateways(B), "it is tried again"


async def test_a_node_that_fails_is_not_tried_again_at_once(fleet: FakeFleet) -> None:
    supervisor = supervisor_of(fleet, retry_s=3600.0)
    fleet.refusing[A] = 1
    for _ in range(2):
        await supervisor.reconcile_once()
    assert not fleet.gateways(A)
    await supervisor.stop()


async def test_no_gateway_at_all_says_why(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.refusing[A] = 1
    with pytest.raises(ServiceUnavailable, match="the port is taken"):
        await supervisor.start()


async def test_a_singleton_that_cannot_start_does_not_hold_up_gateways(
    fleet: FakeFleet, supervisor: Supervisor
) -> None:
    await supervisor.reconcile_once()
    fleet.remove("directory")
    fleet.refusing["directory"] = 1
    fleet.node_ids = [A, B]
    with pytest.raises(ServiceUnavailable, match="directory did not start"):
        await supervisor.reconcile_once()
    assert fleet.gateways(B)
    await supervisor.reconcile_once()
    assert "directory" in await fleet.names()


async def test_what_is_fit_is_adopted(fleet: FakeFleet, supervisor: Supervisor) -> None:
    for name in ("directory", "janitor", LEFT, ACTOR):
        fleet.add(name)
    assert await supervisor.start() == [f"http://{LEFT}"]
    assert not fleet.started
    assert not fleet.killed


@pytest.mark.parametrize("name", ["directory", "janitor", LEFT, ACTOR])
@pytest.mark.parametrize("fault", ["draining", "settings", "silent", "broken"])
async def test_what_is_not_fit_is_replaced(fleet: FakeFleet, supervisor: Supervisor, name: str, fault: str) -> None:
    for each in ("directory", "janitor", LEFT, ACTOR):
        at_fault = fault if each == name else ""
        fleet.add(
            each, draining=at_fault == "draining", settings="others" if at_fault == "settings" else "the settings"
        )
    if fault in {"silent", "broken"}:
        getattr(fleet, fault).add(name)
    await supervisor.start()
    is_drained = fault == "settings" and name in {LEFT, ACTOR}
    assert (fleet.killed, fleet.stopped) == (([], [name]) if is_drained else ([name], []))
    assert fleet.told == ([name] if is_drained else [])
    assert len(fleet.started) == (0 if name == ACTOR else 1), "the directory starts session actors, not the supervisor"


async def test_another_version_is_replaced_node_by_node(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.node_ids = [A, B]
    other = f"gateway-{B[:6]}-left"
    for name in (LEFT, other):
        fleet.add(name, settings="of another version")
    seen: list[list[str]] = []
    start = fleet.start

    async def watched(name: str, node_id: str) -> None:
        seen.append([name, *fleet.stopped])
        await start(name, node_id)

    fleet.start = watched  # type: ignore[method-assign]
    await supervisor.start()
    assert [stopped for name, *stopped in seen if name.startswith(f"gateway-{A[:6]}")] == [[LEFT]]
    assert [stopped for name, *stopped in seen if name.startswith(f"gateway-{B[:6]}")] == [[LEFT, other]]


async def test_a_foreign_actor_in_the_namespace_is_left_alone(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.add("somebody-else", settings="others")
    await supervisor.start()
    assert not fleet.killed


async def test_a_replaced_gateway_may_keep_its_port_for_a_moment(fleet: FakeFleet, supervisor: Supervisor) -> None:
    fleet.add(LEFT)
    fleet.silent.add(LEFT)
    fleet.refusing[A] = 2
    assert len(await supervisor.start()) == 1


async def test_a_gateway_that_dies_is_replaced(fleet: FakeFleet, supervisor: Supervisor) -> None:
    await supervisor.start()
    (first,) = fleet.gateways(A)
    fleet.remove(first)
    await eventually(lambda: fleet.gateways(A), "another one is there")
    assert fleet.gateways(A) != [first]


async def test_an_actor_that_the_directory_starts_meanwhile_is_ended_too(fleet: FakeFleet) -> None:
    supervisor = supervisor_of(fleet)
    fleet.add(ACTOR)
    await supervisor.start()
    real = fleet.stop

    async def stop(name: str) -> None:
        await real(name)
        if name == ACTOR:
            fleet.add(f"{ACTOR}-replacement")

    fleet.stop = stop  # type: ignore[method-assign]
    await supervisor.stop()
    assert not await fleet.names()


async def test_stopping_drains_and_ends_everything(fleet: FakeFleet) -> None:
    supervisor = supervisor_of(fleet)
    fleet.add(ACTOR)
    await supervisor.start()
    (gateway,) = fleet.gateways(A)
    await supervisor.stop()
    assert fleet.told == [gateway, ACTOR]
    assert fleet.stopped == [ACTOR, gateway, "janitor", "directory"]
    await supervisor.reconcile_once()
    assert not await fleet.names()
