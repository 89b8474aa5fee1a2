"""The owner changes while readers follow: crashes, lapsed leases, clean moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from actors.errors import ServiceUnavailable
from actors.messages import Follow
from tests.streams.scene import Played, Scene, play, together
from tests.support.facts import eventually

Make = Callable[..., Awaitable[Scene]]


async def again(world: Scene, played: Played, key: str = "a") -> None:
    """The resumed round says other words and ends."""
    take = await world.models.take(key)
    take.say("Once ", "more.")
    take.finish()
    assert await played.watch.ended(played.turn_id) == "succeeded"


async def test_a_crash_in_a_round_takes_its_words_back(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("These ", "words ", "are ", "lost.")
    await world.crash_owner(played.session_id)
    await again(world, played)
    assert played.reading.rewinds == 1
    assert played.reading.text() == "Once more."
    await played.check()
    late = await world.whole(played.session_id)
    assert late.text() == "Once more."


@pytest.mark.parametrize("stored", [True, False])
async def test_a_crash_after_a_committed_round_keeps_it(scene: Make, stored: bool) -> None:
    world = await scene()
    played = await play(world)
    await played.say("Kept. ")
    played.take.call("calculator", {"expression": "1+1"})
    played.take.finish()
    second = await world.models.take("a")
    second.say("Taken ", "back.")
    await played.watch.saw("llm_output_delta", 3)
    if stored:
        await world.stored(played.session_id, played.reading.cursor)
    await world.crash_owner(played.session_id)
    await again(world, played)
    assert played.reading.text() == "Kept. Once more."
    await played.check()
    await world.whole(played.session_id)


async def test_a_question_queued_in_the_middle_does_not_save_the_words_before_it(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("Not ", "kept.")
    queued = await played.tab.start("echo later", played.session_id)
    await played.watch.saw("queued")
    await world.crash_owner(played.session_id)
    await again(world, played)
    assert queued.ack is not None
    await played.watch.ended(queued.ack["turn_id"])
    assert played.reading.text(played.turn_id) == "Once more."
    await played.check()
    await world.whole(played.session_id)


async def test_three_crashes_in_one_turn(scene: Make) -> None:
    world = await scene(sessions={"max_crashes": 5})
    played = await play(world)
    for number in range(3):
        await played.say(f"try {number} ")
        await world.crash_owner(played.session_id)
        await played.watch.saw("rewind", number + 1)
        played.take = await world.models.take("a")
    played.take.say("done")
    played.take.finish()
    assert await played.watch.ended(played.turn_id) == "succeeded"
    assert played.reading.text() == "done"
    await played.check()
    await world.whole(played.session_id)


async def test_a_turn_that_crashes_its_owners_is_given_up(scene: Make) -> None:
    world = await scene(sessions={"max_crashes": 1})
    played = await play(world)
    for number in range(2):
        await world.crash_owner(played.session_id)
        await played.watch.saw("rewind", number + 1)
        if number == 0:
            await world.models.take("a")
    assert await played.watch.ended(played.turn_id) == "failed"
    await world.whole(played.session_id)


async def test_an_idle_sessions_crash(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("All ", "kept.")
    await played.end()
    await world.crash_owner(played.session_id)
    await played.watch.saw("rewind")
    tab = await world.client.tab()
    more = await tab.start("echo and more", played.session_id)
    assert more.ack is not None
    await played.watch.ended(more.ack["turn_id"])
    await played.check()
    await world.whole(played.session_id)


async def test_a_clean_move_continues_the_numbers(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("one ", "two ")
    await played.end()
    for number in range(4):
        before = played.reading.cursor
        await world.passivate(played.session_id)
        more = await played.tab.start(f"echo turn {number}", played.session_id)
        assert more.ack is not None
        assert more.ack["after_event_id"] == before
        await played.watch.ended(more.ack["turn_id"])
    assert played.reading.rewinds == 0
    assert [e["id"] for e in played.reading.events] == list(range(1, played.reading.cursor + 1))
    await played.check()
    await world.whole(played.session_id)


async def test_an_owner_that_stops_while_its_turn_runs(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("Not ", "kept.")
    name, host = world.host_of(played.session_id)
    world.cluster.hosts.pop(name)
    await host.stop()
    world.cluster.reach.kill(name)
    await again(world, played)
    assert played.reading.text() == "Once more."
    await played.check()
    await world.whole(played.session_id)


async def test_a_lease_that_lapses(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("Not ", "kept.")
    _, host = world.host_of(played.session_id)
    store = world.cluster.stores[next(iter(world.cluster.gateways))]
    await store.expire_owner(host._lease.owner_id)
    host._lease._renewal.wake()
    await again(world, played)
    assert played.reading.text() == "Once more."
    assert host._lease.owner_id
    await played.check()
    await world.whole(played.session_id)


async def test_a_lost_lease_that_its_owner_has_not_noticed(scene: Make) -> None:
    """Another owner takes the session over; what the old one still says is refused."""
    world = await scene()
    played = await play(world)
    await played.say("Not ", "kept.")
    name, host = world.host_of(played.session_id)
    await host._lease._renewal.stop()
    world.cluster.reach.hang(name)
    store = world.cluster.stores[next(iter(world.cluster.gateways))]
    await store.expire_owner(host._lease.owner_id)
    take = await world.models.take("a", timeout_s=20.0)
    played.take.say("from the ", "dead")
    take.say("New.")
    await eventually(lambda: played.session_id not in host._runners, "the old owner gives up")
    world.cluster.reach.wake(name)
    world.cluster.gateways[next(iter(world.cluster.gateways))].topics._actor_lost(name)
    take.finish()
    assert await played.watch.ended(played.turn_id) == "succeeded"
    host._lease._renewal.start()
    assert played.reading.text() in ("New.", "Not kept.New."[-4:])
    await played.check()
    await world.whole(played.session_id)


async def test_many_followers_of_an_owner_that_dies(scene: Make, rng: random.Random) -> None:
    world = await scene(sessions={"line_interval_ms": 0.0, "max_crashes": 9})
    played = await play(world)
    await played.say(*(f"w{i} " for i in range(20)))
    tabs = [await world.client.tab() for _ in range(10)]
    watches = [await tab.watch(played.session_id, rng.randint(0, 22)) for tab in tabs for _ in range(5)]
    for number in range(2):
        await world.crash_owner(played.session_id)
        played.take = await world.models.take("a")
        for _ in range(rng.randint(0, 30)):
            played.take.say(f"x{number} ")
            if rng.random() < 0.3:
                await asyncio.sleep(0)
    await played.end()
    for watch in watches:
        await watch.ended(played.turn_id)
        assert watch.reading is not None
        assert not watch.reading.gaps
        if watch.reading.begin == 0:
            assert watch.reading.text() == played.reading.text()
    await played.check()
    await world.whole(played.session_id)


async def test_the_new_owners_line_is_faster_than_its_reply(scene: Make) -> None:
    """What comes between the loss of an owner and the reply of the next one is not skipped over."""
    world = await scene(sessions={"line_interval_ms": 0.0})
    played = await play(world)
    await played.say("Not ", "kept.")
    release = asyncio.Event()

    async def slow_reply(_: str, command: object) -> None:
        if isinstance(command, Follow):
            await release.wait()

    world.cluster.reach.after.append(slow_reply)
    await world.crash_owner(played.session_id)
    take = await world.models.take("a")
    take.say("Once ")
    await eventually(lambda: world.runner_of(played.session_id).stream.lines, "followed")
    take.say("more.")
    await eventually(lambda: not world.host_of(played.session_id)[1]._lines.depth, "sent")
    release.set()
    take.finish()
    assert await played.watch.ended(played.turn_id) == "succeeded"
    assert not played.reading.gaps
    assert played.reading.text() == "Once more."
    await played.check()


async def test_a_line_that_breaks_is_taken_up_again(scene: Make) -> None:
    """The owner cannot reach the gateway once: its readers miss nothing."""
    world = await scene(sessions={"line_interval_ms": 0.0, "max_actors_per_node": 1})
    first, second = await play(world, "first"), await play(world, "second", client=world.client)
    await together(first.say("one "), second.say("uno "))
    gateway = next(iter(world.cluster.gateways))
    broken = [True]

    async def breaks(name: str, _: object) -> None:
        if name == gateway and broken:
            broken.pop()
            raise ServiceUnavailable("cut")

    world.cluster.reach.before.append(breaks)
    first.take.say("two ")
    await eventually(lambda: not broken, "the line broke")
    tab = await world.client.tab()
    third = await tab.start("echo three")
    assert third.ack is not None
    await third.ended(third.ack["turn_id"])
    first.take.say("three")
    second.take.say("dos")
    await together(first.end(), second.end())
    await together(first.check(), second.check())


async def test_a_hung_owner_is_replaced(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.owners._ATTEMPT_S", 0.3)
    world = await scene(sessions={"lease_s": 1.0, "lease_renew_s": 0.2, "lease_stop_s": 0.7})
    played = await play(world)
    await played.say("Not ", "kept.")
    name, host = world.host_of(played.session_id)
    await host._lease._renewal.stop()
    world.cluster.reach.hang(name)
    await again(world, played)
    world.cluster.reach.wake(name)
    host._lease._renewal.start()
    assert played.reading.text() == "Once more."
    await played.check()
    await world.whole(played.session_id)
