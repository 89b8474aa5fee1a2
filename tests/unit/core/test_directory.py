"""Where sessions live and how many actors there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors import directory, placement
from actors.errors import ServiceUnavailable, WunderError
from actors.messages import Sweep, TokenEnded
from storage.records import OwnerId, SessionId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.support.directory_bench import DirectoryBench
from tests.support.facts import eventually

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


async def test_with_budget_for_all_every_session_has_an_actor_of_its_own(bench: Make) -> None:
    found = bench(max_actors_per_node=20)
    await found.start()
    places = await asyncio.gather(*(found.locate(f"s{i}") for i in range(20)))
    assert len(set(places)) == 20
    assert len(found.launcher.started) == 20


async def test_the_budget_is_never_exceeded_and_sessions_share_evenly(bench: Make) -> None:
    found = bench(max_actors_per_node=3, nodes=2)
    await found.start()
    places = await asyncio.gather(*(found.locate(f"s{i}") for i in range(24)))
    assert Counter(Counter(places).values()) == {4: 6}
    assert Counter(node for node, _ in found.launcher.started) == {"node-0": 3, "node-1": 3}


async def test_without_a_budget_there_are_two_actors_per_cpu(bench: Make) -> None:
    found = bench()
    await found.start()
    for index in range(10):
        await found.locate(f"s{index}")
    assert len(found.launcher.started) == 4


async def test_spares_are_started_ahead_and_replaced_when_used(bench: Make) -> None:
    found = bench(max_actors_per_node=4, spare_actors=2)
    await found.start()
    await eventually(lambda: len(found.launcher.started) == 2, "two spares")
    assert await found.locate("s1") == "actor-1"
    await eventually(lambda: len(found.launcher.started) == 3, "a spare was replaced")
    for index in range(2, 9):
        await found.locate(f"s{index}")
    assert len(found.launcher.started) == 4


async def test_a_session_stays_where_it_is(bench: Make) -> None:
    found = bench(max_actors_per_node=4)
    await found.start()
    first = await found.locate("s1")
    assert [await found.locate("s1") for _ in range(3)] == [first] * 3


async def test_sessions_wait_for_an_actor_that_is_starting(bench: Make) -> None:
    found = bench(max_actors_per_node=1)
    found.launcher.gate.clear()
    await found.start()
    waiting = [asyncio.ensure_future(found.locate(f"s{i}")) for i in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    found.launcher.gate.set()
    assert await asyncio.gather(*waiting) == ["actor-1"] * 3


async def test_a_start_that_failed_is_tried_again(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_FIRST_PAUSE_S", 0.0)
    found = bench(max_actors_per_node=1)
    found.launcher.failures = [ServiceUnavailable("no"), ServiceUnavailable("not yet")]
    await found.start()
    assert await found.locate("s1") == "actor-1"
    assert found.directory._placement.starting == {"node-0": 0}


async def test_nobody_waits_for_ever(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_START_TIMEOUT_S", 0.01)
    found = bench(max_actors_per_node=1)
    found.launcher.gate.clear()
    await found.start()
    with pytest.raises(ServiceUnavailable, match="no session actor is ready"):
        await found.locate("s1")
    assert found.directory._choosing == 0


async def test_the_owner_that_the_database_named_is_believed(bench: Make) -> None:
    found = bench(max_actors_per_node=2)
    await found.start()
    await asyncio.gather(found.locate("s1"), found.locate("s2"))
    other = await found.locate("s2")
    assert await found.locate("s1", owner_hint=OwnerId(f"own-{other}")) == other
    assert await found.locate("s1") == other
    assert await found.locate("s1", owner_hint=OwnerId("nobody knows")) == other


async def test_an_actor_that_did_not_answer_is_avoided(bench: Make) -> None:
    found = bench(max_actors_per_node=2)
    await found.start()
    first = await found.locate("s1")
    second = await found.locate("s1", avoid=first)
    assert second != first
    assert await found.locate("s1") == second


async def test_an_orphaned_session_makes_its_actor_suspect_until_it_reports(bench: Make) -> None:
    found = bench(max_actors_per_node=2)
    await found.start()
    first = await found.locate("s1")
    second = await found.locate("s1", orphaned=True)
    assert second != first
    assert {(await found.locate(f"t{i}")) for i in range(4)} & {first} == set()
    await found.report(first)
    assert await found.locate("u") == first


async def test_waiters_are_told_when_a_suspect_actor_comes_back(bench: Make) -> None:
    found = bench(max_actors_per_node=1)
    await found.start()
    first = await found.locate("s1")
    found.launcher.gate.clear()
    waiting = asyncio.ensure_future(found.locate("s1", orphaned=True))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    found.directory._placement.starting.clear()
    found.launcher.found = []
    await found.report(first)
    assert await waiting == first
    found.launcher.gate.set()


async def test_a_passivated_session_is_nowhere(bench: Make) -> None:
    found = bench(max_actors_per_node=2)
    await found.start()
    place = await found.locate("s1")
    await found.handle.passivated(place, (SessionId("s1"),))
    assert (await found.describe()).gauges["sessions_located"] == 0


async def test_a_dead_actor_is_replaced_and_its_lease_ended_at_once(bench: Make, store: AsyncStorageBackend) -> None:
    found = bench(max_actors_per_node=1)
    await found.start()
    first = await found.locate("s1")
    await make.owner(store, f"own-{first}")
    found.reach.kill(first)
    await eventually(lambda: len(found.launcher.started) == 2, "a new actor was started")
    assert await found.locate("s1") == "actor-2"
    await eventually(lambda: found.reach.heard("janitor", Sweep), "the janitor was told")
    assert await store.live_owners() == []


async def test_nothing_is_located_before_the_directory_knows_again(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_START_TIMEOUT_S", 0.01)
    found = bench(max_actors_per_node=1)
    with pytest.raises(ServiceUnavailable, match="starting"):
        await found.locate("s1")


async def test_after_a_restart_sessions_are_where_their_actors_say(bench: Make) -> None:
    found = bench(max_actors_per_node=2)
    await found.start()
    places = {name: await found.locate(name) for name in ("s1", "s2")}

    def telling(session_id: str, place: str) -> Any:
        async def answer(_: object) -> Any:
            await found.report(place, sessions=(session_id,))
            return directory.Done()

        return answer

    for session_id, place in places.items():
        found.reach.answers[place] = telling(session_id, place)
    await found.restart()
    assert {name: await found.locate(name) for name in places} == places
    assert len(found.launcher.started) == 2


async def test_gateways_are_told_of_ended_tokens_while_they_live(bench: Make) -> None:
    found = bench()
    await found.start()
    await found.handle.register_gateway("g1", "node-0", "http://x")
    await found.handle.register_gateway("g2", "node-0", "http://y")
    found.reach.kill("g2")
    await eventually(lambda: len(found.directory._gateways) == 1, "the dead gateway is forgotten")
    await found.handle.token_ended(("hash",))
    await eventually(lambda: found.reach.heard("g1", TokenEnded), "the gateway was told")
    assert [g["name"] for g in (await found.describe()).info["gateways"]] == ["g1"]


async def test_a_command_for_somebody_else_is_refused(bench: Make) -> None:
    found = bench()
    await found.start()
    with pytest.raises(WunderError, match="does not take Sweep"):
        await directory.tell(found.directory.handle, Sweep())


async def test_a_directory_that_stops_starts_no_actor(bench: Make) -> None:
    found = bench(max_actors_per_node=4, spare_actors=2)
    await found.start()
    await eventually(lambda: len(found.launcher.started) == 2, "two spares")
    assert await found.locate("s1") == "actor-1"
    await found.directory.stop()
    before = len(found.launcher.started)
    await found.locate("s2")  # the second spare is taken, and would be replaced
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(found.launcher.started) == before
