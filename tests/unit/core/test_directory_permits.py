"""Permits: exact limits, grants in order, and none lost by a crash, a lost call or a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.errors import ServiceUnavailable
from actors.handles import CALL_TIMEOUT_S
from actors.messages import Grant, Report
from actors.replies import Done
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.support.directory_bench import DirectoryBench
from tests.support.facts import eventually

Make = Callable[..., Any]


@pytest.fixture
async def bench(store: AsyncStorageBackend) -> AsyncIterator[Make]:
    made: list[DirectoryBench] = []

    async def build(**options: Any) -> DirectoryBench:
        made.append(DirectoryBench(store, **options))
        await made[-1].start()
        return made[-1]

    yield build
    for found in made:
        await found.directory.stop()


async def test_a_refusal_says_why(bench: Make) -> None:
    found = await bench(max_active=2, max_active_per_user=1, queue=1)
    assert (await found.acquire("s1", user="ada")).granted
    assert (await found.acquire("s2", user="ada", wait=False)).reason == "user_limit"
    assert (await found.acquire("s3", user="bob")).granted
    refused = await found.acquire("s4", user="cleo", wait=False)
    assert (refused.granted, refused.waiting, refused.reason) == (False, False, "service_limit")
    waits = await found.acquire("s5", user="cleo")
    assert (waits.granted, waits.waiting, waits.position, waits.reason) == (False, True, 1, "service_limit")
    full = await found.acquire("s6", user="cleo")
    assert (full.granted, full.waiting, full.reason) == (False, False, "queue_full")


async def test_a_free_permit_is_pushed_to_who_waits_longest(bench: Make) -> None:
    found = await bench(max_active=1)
    await found.acquire("s1", "a")
    await found.acquire("s2", "b")
    await found.acquire("s3", "c")
    await found.release("s1")
    await eventually(lambda: found.reach.heard("b", Grant), "the grant was pushed")
    assert (found.held, found.waiting, found.reach.heard("c", Grant)) == ({"s2": "b"}, ["s3"], [])


async def test_who_does_not_wait_any_more_is_not_granted(bench: Make) -> None:
    found = await bench(max_active=1)
    await found.acquire("s1")
    await found.acquire("s2", "b")
    await found.release("s2", "b")
    await found.release("s1")
    assert (found.held, found.waiting) == ({}, [])


async def test_only_its_holder_gives_a_permit_back(bench: Make) -> None:
    found = await bench(max_active=1)
    await found.acquire("s1", "old")
    await found.acquire("s1", "new")
    await found.release("s1", "old")
    assert found.held == {"s1": "new"}


async def test_a_grant_to_a_dead_actor_goes_to_the_next(bench: Make) -> None:
    found = await bench(max_active=1)
    await found.acquire("s1", "a")
    await found.acquire("s2", "b")
    await found.acquire("s3", "c")

    def failing(_: object) -> Any:
        raise ServiceUnavailable("dying")

    found.reach.answers["b"] = failing
    await found.release("s1", "a")
    await eventually(lambda: found.held == {"s3": "c"}, "the next one has it")


async def test_a_dead_actors_permits_and_places_are_free_at_once(bench: Make) -> None:
    found = await bench(max_active=2)
    for session_id in ("s1", "s2", "s3"):
        await found.acquire(session_id, "dead")
    await found.acquire("s4", "alive")
    await found.report("dead", held=("s1", "s2"), waiting=("s3",))
    found.reach.kill("dead")
    await eventually(lambda: found.held == {"s4": "alive"}, "the permits are free")
    assert found.waiting == []
    await eventually(lambda: found.reach.heard("alive", Grant), "the waiter was told")


async def test_a_request_that_comes_after_its_actors_death_keeps_nothing(bench: Make) -> None:
    found = await bench(max_active=1)
    found.reach.kill("dead")
    await found.acquire("s1", "dead")
    await eventually(lambda: found.held == {}, "the permit is free again")


async def test_a_process_that_comes_back_as_a_new_owner_holds_only_what_it_says(bench: Make) -> None:
    found = await bench(max_active=5)
    await found.report("a", owner="own-1")
    await found.acquire("s1", "a")
    await found.acquire("s2", "a")
    await found.report("a", owner="own-2", held=("s2",))
    assert found.held == {"s2": "a"}


async def test_a_permit_whose_release_was_lost_is_reclaimed(bench: Make) -> None:
    found = await bench(max_active=1)
    await found.report("a")
    await found.acquire("s1", "a")
    await found.acquire("s2", "b")
    await found.report("a", sessions=("s1",))
    found.clock.advance(CALL_TIMEOUT_S)
    await found.report("a", sessions=("s1",))
    assert found.held == {"s1": "a"}
    found.clock.advance(1)
    await found.report("a", sessions=("s1",))
    assert found.held == {"s2": "b"}
    await eventually(lambda: found.reach.heard("b", Grant), "the waiter was told")


async def test_a_permit_that_is_in_use_again_is_not_reclaimed(bench: Make) -> None:
    found = await bench(max_active=1)
    await found.report("a")
    await found.acquire("s1", "a")
    await found.report("a")
    found.clock.advance(CALL_TIMEOUT_S + 1)
    await found.acquire("s1", "a")
    await found.report("a")
    found.clock.advance(CALL_TIMEOUT_S - 1)
    await found.report("a", held=("s1",))
    found.clock.advance(CALL_TIMEOUT_S - 1)
    await found.report("a")
    assert found.held == {"s1": "a"}
    await found.release("s1", "a")
    assert found.directory.desk.unclaimed == {}


async def test_after_a_restart_reports_and_running_turns_are_counted(bench: Make, store: AsyncStorageBackend) -> None:
    found = await bench(max_active=2)
    await found.report("a")
    found.launcher.names = ["a"]

    async def report(command: object) -> Done:
        if isinstance(command, Report):
            await found.report("a", held=("s1",), waiting=("s2",))
        return Done()

    found.reach.answers["a"] = report
    fence = await make.fence(store, "crashed")
    await make.accept(store, fence, make.task("t1", session_id="crashed"))
    await found.restart()
    assert (found.held, found.waiting) == ({"s1": "a", "crashed": "?"}, ["s2"])
    await found.release("s1", "a")
    await eventually(lambda: found.reach.heard("a", Grant), "the waiter was told")
    assert found.held == {"s2": "a", "crashed": "?"}


async def test_a_turn_whose_owner_reports_late_gives_its_permit_back_itself(
    bench: Make, store: AsyncStorageBackend
) -> None:
    found = await bench(max_active=1)
    fence = await make.fence(store, "s1")
    await make.accept(store, fence, make.task("t1", session_id="s1"))
    await found.restart()
    assert found.held == {"s1": "?"}
    await found.release("s1", "late")
    assert found.held == {}


async def test_a_turn_that_ended_while_the_directory_was_away_keeps_no_permit(
    bench: Make, store: AsyncStorageBackend
) -> None:
    found = await bench(max_active=1)
    fence = await make.fence(store, "s1")
    await make.accept(store, fence, make.task("t1", session_id="s1"))
    await found.restart()
    await found.acquire("s2", "b")
    await make.finish(store, fence)
    await found.directory._keep()
    assert found.held == {"s2": "b"}


async def test_who_takes_a_crashed_session_over_takes_its_permit(bench: Make, store: AsyncStorageBackend) -> None:
    found = await bench(max_active=1)
    fence = await make.fence(store, "s1")
    await make.accept(store, fence, make.task("t1", session_id="s1"))
    await found.restart()
    assert (await found.acquire("s1", "new")).granted
    assert found.held == {"s1": "new"}
    gauges = (await found.describe()).gauges
    assert (gauges["permits_held"], gauges["permits_waiting"]) == (1, 0)
