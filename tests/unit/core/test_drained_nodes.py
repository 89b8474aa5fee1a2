"""Nodes that are taken out of service, and nodes that say how many session actors they have places for."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.errors import Conflict, NotFound
from actors.handles import ask
from actors.messages import Describe
from actors.placement import Node, Placement
from actors.replies import Description
from storage.store import AsyncStorageBackend
from tests.support.directory_bench import DirectoryBench

Make = Callable[..., DirectoryBench]


@pytest.fixture
async def bench(store: AsyncStorageBackend) -> AsyncIterator[Make]:
    made: list[DirectoryBench] = []

    def build(**options: Any) -> DirectoryBench:
        made.append(DirectoryBench(store, **options))
        return made[-1]

    yield build
    for found in made:
        await found.directory.stop()


def node_of(found: DirectoryBench, actor: str) -> str:
    return {name: node for node, name in found.launcher.started}[actor]


async def test_a_drained_node_gets_no_session_and_no_actor(bench: Make) -> None:
    found = bench(max_actors_per_node=2, nodes=2)
    await found.start()
    await found.handle.drain_node("node-0", undo=False)
    assert {node_of(found, await found.locate(f"s{index}")) for index in range(6)} == {"node-1"}
    assert Counter(node for node, _ in found.launcher.started) == {"node-0": 1, "node-1": 2}, "one is each node's first"
    await found.handle.drain_node("node-0", undo=True)
    assert {node_of(found, await found.locate(f"t{index}")) for index in range(2)} == {"node-0"}


async def test_its_sessions_stay_until_they_are_handed_over(bench: Make) -> None:
    found = bench(max_actors_per_node=1, nodes=2)
    await found.start()
    first = await found.locate("s1")
    await found.handle.drain_node(node_of(found, first), undo=False)
    assert await found.locate("s1") == first
    assert await found.locate("s2") != first


async def test_an_unknown_node_is_refused(bench: Make) -> None:
    found = bench()
    await found.start()
    with pytest.raises(NotFound, match="no node 'nowhere'"):
        await found.handle.drain_node("nowhere", undo=False)


async def test_the_last_node_is_kept(bench: Make) -> None:
    found = bench(nodes=2)
    await found.start()
    await found.handle.drain_node("node-0", undo=False)
    await found.handle.drain_node("node-0", undo=False)
    with pytest.raises(Conflict, match="last node"):
        await found.handle.drain_node("node-1", undo=False)
    await found.handle.drain_node("node-0", undo=True)
    await found.handle.drain_node("node-1", undo=False)


async def test_a_description_says_which_are_drained_and_who_says_so(bench: Make) -> None:
    found = bench(nodes=2)
    await found.start()
    await found.handle.drain_node("node-1", undo=False)
    info = (await ask(found.handle.call, Describe(), Description)).info
    assert {node["node_id"]: node["drained"] for node in info["nodes"]} == {"node-0": False, "node-1": True}
    assert info["incarnation"]


async def test_a_node_that_is_gone_is_forgotten(bench: Make) -> None:
    found = bench(nodes=2)
    await found.start()
    await found.handle.drain_node("node-1", undo=False)
    node = found.launcher.found.pop()
    await found.directory._keep()
    found.launcher.found.append(node)
    await found.directory._keep()
    info = (await ask(found.handle.call, Describe(), Description)).info
    assert not any(node["drained"] for node in info["nodes"])


# -- places ------------------------------------------------------------------------------------------------------------


async def test_a_node_has_as_many_actors_as_it_offers_places(bench: Make) -> None:
    found = bench(actor_resource="wunder_session", nodes=0)
    found.launcher.found = [Node("head", 2.0, "", 0), Node("big", 2.0, "", 3), Node("small", 8.0, "", 1)]
    await found.start()
    for index in range(8):
        await found.locate(f"s{index}")
    assert Counter(node for node, _ in found.launcher.started) == {"big": 3, "small": 1}


def placement(*places: int | None, budget: int = 0, spare: int = 1) -> Placement:
    made = Placement(budget=budget, spare=spare, monotonic_s=lambda: 0.0)
    made.take_nodes([Node(f"n{index}", 2.0, "", count) for index, count in enumerate(places)])
    return made


def test_the_smaller_of_places_and_budget_counts() -> None:
    assert placement(8, budget=3).budget("n0") == 3
    assert placement(2, budget=3).budget("n0") == 2
    assert placement(None, budget=3).budget("n0") == 3
    assert placement(None).budget("n0") == 4


@pytest.mark.parametrize(
    ("sessions", "places", "expected"),
    [(0, (4,), 2), (100, (4,), 3), (400, (4,), 8), (5000, (4, 4), 12), (5000, (0,), 1), (150, (4, 4), 4)],
)
def test_room_is_asked_for_node_by_node(sessions: int, places: tuple[int, ...], expected: int) -> None:
    found = placement(*places)
    found.locations = {f"s{index}": "actor" for index in range(sessions)}  # type: ignore[misc]
    assert found.places_wanted(50) == expected


async def test_the_autoscaler_is_asked_once_for_what_has_changed(bench: Make) -> None:
    found = bench(actor_resource="wunder_session", sessions_per_actor=2, nodes=0)
    found.launcher.found = [Node("n0", 2.0, "", 2)]
    await found.start()
    await found.directory._keep()
    await found.directory._keep()
    assert found.launcher.asked == [1]
    for index in range(5):
        await found.locate(f"s{index}")
    await found.directory._keep()
    assert found.launcher.asked == [1, 3]


async def test_without_the_resource_nothing_is_asked_for(bench: Make) -> None:
    found = bench()
    await found.start()
    await found.directory._keep()
    assert found.launcher.asked == []
