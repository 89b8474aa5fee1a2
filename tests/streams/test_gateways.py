"""Gateways come and go, clients too: drains, kicks, storms of reconnections, deleted sessions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from gateway.protocol import CloseCode
from tests.streams.scene import Scene, play, together
from tests.support.facts import eventually, within
from tests.support.reading import Reading

Make = Callable[..., Awaitable[Scene]]


async def test_a_drained_gateway_sends_its_readers_elsewhere(scene: Make) -> None:
    world = await scene(gateways=2)
    first, second = world.cluster.gateways
    here = world.client.at(world.cluster.gateways[first].address)
    there = world.client.at(world.cluster.gateways[second].address)
    played = await play(world, client=here)
    await played.say("one ", "two ")
    stream = asyncio.create_task(here.sse(played.session_id, 0))
    await eventually(lambda: len(world.cluster.gateways[first].connections) == 2, "the stream is open")
    stopping = asyncio.create_task(world.cluster.stop_gateway(first))
    await within(played.tab.closed.wait(), "closed")
    assert played.tab.socket.close_code == CloseCode.DRAINING
    played.take.say("three ")
    cut = await stream
    rest = await (await there.tab()).resume(played.session_id, played.reading.cursor)
    for event in (again := await _rest(world, there.tabs[-1], rest, played.take, played.turn_id)).events:
        played.reading.take(event)
    for event in (await there.sse(played.session_id, cut.cursor)).events:
        cut.take(event)
    assert played.reading.text() == cut.text() == "one two three four"
    assert again.text() == "three four"
    await stopping
    await _check(world, there, played.reading)


async def _rest(world, tab, request, take, turn_id) -> Reading:  # type: ignore[no-untyped-def]
    take.say("four")
    take.finish()
    await request.ended(turn_id)
    return request.reading


async def _check(world, client, reading: Reading) -> None:  # type: ignore[no-untyped-def]
    session_id = reading.events[0]["data"]["session_id"]
    reading.equals_transcript(await client.messages(session_id))


async def test_a_question_without_stream_at_a_gateway_that_stops_is_not_answered_with_nothing(scene: Make) -> None:
    world = await scene(gateways=2)
    first, second = world.cluster.gateways
    here = world.client.at(world.cluster.gateways[first].address)
    there = world.client.at(world.cluster.gateways[second].address)
    asked = asyncio.create_task(here.ask("gate a", idempotency_key="k"))
    take = await world.models.take("a")
    take.say("the answer")
    stopping = asyncio.create_task(world.cluster.stop_gateway(first))
    status, body = await asked
    assert (status, body["error"]["code"]) == (503, "SERVICE_UNAVAILABLE"), body
    await stopping
    again = asyncio.create_task(there.ask("gate a", idempotency_key="k"))
    take.finish()
    status, body = await again
    assert (status, body["answer"]) == (200, "the answer")


async def test_gateways_restart_one_after_the_other(scene: Make) -> None:
    world = await scene(gateways=2)
    played = await play(world, client=world.client.at(world.cluster.url))
    whole = Reading(0)
    for number in range(4):
        name = list(world.cluster.gateways)[-1]
        tab = await world.client.at(world.cluster.gateways[name].address).tab()
        watch = await tab.watch(played.session_id, whole.cursor)
        played.take.say(f"{number}a ", f"{number}b ")
        await watch.saw("llm_output_delta", 2)
        await world.cluster.stop_gateway(next(n for n in world.cluster.gateways if n == name))
        await within(tab.closed.wait(), "closed")
        assert watch.reading is not None
        for event in watch.reading.events:
            whole.take(event)
        await world.cluster.start_gateway()
    played.take.finish()
    client = world.client.at(world.cluster.url)
    for event in (await client.sse(played.session_id, whole.cursor)).events:
        whole.take(event)
    assert whole.text() == "".join(f"{n}a {n}b " for n in range(4))
    await _check(world, client, whole)


async def test_a_storm_of_reconnections_while_it_is_published(scene: Make, rng: random.Random) -> None:
    world = await scene(gateways=2, sessions={"line_interval_ms": 0.0})
    played = await play(world)
    urls = [g.address for g in world.cluster.gateways.values()]
    over = asyncio.Event()
    before = sum(world.cluster.stores[name].statements().get("read_events", 0) for name in world.cluster.gateways)

    async def follow() -> Reading:
        whole = Reading(0)
        while played.turn_id not in whole.ended:
            tab = await world.client.at(rng.choice(urls)).tab()
            watch = await tab.watch(played.session_id, whole.cursor)
            wanted = whole.cursor + rng.randint(1, 60)
            assert watch.reading is not None
            reading = watch.reading
            await watch.until(lambda r=reading, w=wanted: r.cursor >= w or r.ended, "some events")
            if rng.random() < 0.5:
                tab.socket._response.connection.transport.abort()  # type: ignore[union-attr]
            await tab.close()
            world.client.tabs.remove(tab)
            for event in watch.reading.events:
                whole.take(event)
        return whole

    async def publish() -> None:
        for number in range(400):
            played.take.say(f"{number} ")
            if number % 5 == 0:
                await asyncio.sleep(0)
        played.take.finish()
        over.set()

    *readings, _ = await together(*(follow() for _ in range(20)), publish())
    await played.watch.ended(played.turn_id)
    for reading in readings:
        assert not reading.gaps
        reading.agrees_with(played.reading)
    await played.check()
    after = sum(world.cluster.stores[name].statements().get("read_events", 0) for name in world.cluster.gateways)
    assert after == before, "reconnections within the owner's memory need no database"


async def test_fifty_followers_of_one_session(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    tabs = [await world.client.tab() for _ in range(10)]
    watches = [await tab.watch(played.session_id) for tab in tabs for _ in range(6)]
    await played.say(*(f"{i} " for i in range(100)))
    await played.end()
    for watch in watches:
        await watch.ended(played.turn_id)
        assert watch.reading is not None
        watch.reading.agrees_with(played.reading)
    _, host = world.host_of(played.session_id)
    assert host._lines.calls < 100


async def test_a_deleted_session_ends_its_readers(scene: Make) -> None:
    world = await scene(gateways=2)
    played = await play(world)
    await played.say("soon ", "gone")
    there = world.client.at([g.address for g in world.cluster.gateways.values()][1])
    other = await (await there.tab()).watch(played.session_id)
    assert await world.client.delete(played.session_id) == 200
    for request in (played.watch, played.start, other):
        assert (await request.failed())["code"] == "SESSION_NOT_FOUND"
    await within(played.take.ended.wait(), "the model was stopped")
    again = await played.tab.send("watch", session_id=played.session_id)
    assert (await again.failed())["code"] == "SESSION_NOT_FOUND"


async def test_an_ended_watch_is_quiet(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("a")
    tab = await world.client.tab()
    watch = await tab.watch(played.session_id)
    await watch.saw("llm_output_delta")
    assert await tab.cancel(watch) == {"cancelled": True}
    assert watch.reading is not None
    seen = len(watch.reading.events)
    await played.say("b", "c")
    await played.end()
    assert len(watch.reading.events) == seen
    assert (await tab.watch(played.session_id, watch.reading.cursor)).reading is not None


async def test_closing_a_connection_cancels_nothing(scene: Make) -> None:
    world = await scene()
    tab = await world.client.tab()
    start = await tab.start("gate a")
    take = await world.models.take("a")
    take.say("goes ", "on")
    await tab.close()
    assert start.ack is not None
    take.finish()
    reading = await world.client.sse(start.ack["session_id"], 0)
    assert reading.status(start.ack["turn_id"]) == "succeeded"
    assert reading.text() == "goes on"
