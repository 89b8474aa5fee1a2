"""Resuming: after every position, over every transport, of what has ended and of what runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.streams.scene import Scene, play, together
from tests.support.readers import Client, Request, Tab
from tests.support.reading import Reading

Make = Callable[..., Awaitable[Scene]]


async def resumed(tab: Tab, session_id: str, after: int, end: int) -> Reading:
    """A resume of an idle session, to its end."""
    request = await tab.resume(session_id, after)
    assert request.reading is not None
    await request.reached(max(after, end))
    return request.reading


async def everything(client: Client, session_id: str) -> Reading:
    tab = await client.tab()
    reading = await resumed(tab, session_id, 0, (await client.page(session_id, 0)).cursor)
    reading.equals_transcript(await client.messages(session_id))
    return reading


async def test_a_finished_turn_at_every_position_over_every_transport(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("Hel", "lo", ", ", "wörld", " 🎉", "!")
    played.take.call("calculator", {"expression": "6*7"})
    played.take.finish()
    second = await world.models.take("a")
    second.say("It is ", "42", ".")
    second.finish()
    assert await played.watch.ended(played.turn_id) == "succeeded"
    await played.check()
    whole, tab = played.reading, await world.client.tab()
    assert whole.text() == "Hello, wörld 🎉!It is 42."
    for after in range(whole.cursor + 1):
        page = await world.client.page(played.session_id, after)
        for reading in (
            await resumed(tab, played.session_id, after, whole.cursor),
            await world.client.sse(played.session_id, after),
            page,
        ):
            reading.agrees_with(whole)
            assert not reading.gaps
            assert reading.text() == page.text()


async def test_a_finished_turn_that_only_the_store_has(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say(*(f"{i} " for i in range(30)))
    await played.end()
    await world.cluster.stop_gateway(next(iter(world.cluster.gateways)))
    await world.cluster.start_gateway()
    await world.passivate(played.session_id)
    client = world.client.at(world.cluster.url)
    tab = await client.tab()
    for after in range(played.reading.cursor + 1):
        reading = await resumed(tab, played.session_id, after, played.reading.cursor)
        reading.agrees_with(played.reading)
        (await client.page(played.session_id, after)).agrees_with(played.reading)
        assert not reading.gaps


async def test_a_running_turn_at_every_position(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say(*(f"w{i} " for i in range(12)))
    here, tab = played.reading.cursor, await world.client.tab()
    requests = [await tab.resume(played.session_id, after) for after in range(here + 1)]
    streams = [asyncio.create_task(world.client.sse(played.session_id, after)) for after in range(here + 1)]
    for request in requests:
        await request.reached(here)
    await played.say("more ", "and more")
    await played.end()
    for request in requests:
        await request.ended(played.turn_id)
    for reading in [*(r.reading for r in requests), *await together(*streams)]:
        assert reading is not None
        reading.agrees_with(played.reading)
        assert not reading.gaps
    for after in range(here + 1):
        (await world.client.page(played.session_id, after)).agrees_with(played.reading)
    await played.check()


async def test_resume_while_it_is_published(scene: Make, rng: random.Random) -> None:
    world = await scene(sessions={"line_interval_ms": 0.0})
    played = await play(world)
    tabs = [await world.client.tab() for _ in range(4)]
    requests: list[Request] = []

    async def join() -> None:
        for _ in range(10):
            tab, after = rng.choice(tabs), rng.randint(0, played.reading.cursor)
            requests.append(await tab.resume(played.session_id, after))
            await asyncio.sleep(0)

    async def publish() -> None:
        for number in range(300):
            played.take.say(f"{number} ")
            if rng.random() < 0.2:
                await asyncio.sleep(0)
            if rng.random() < 0.02:
                await world.stored(played.session_id, played.reading.cursor)

    await together(publish(), join(), join(), join())
    assert await played.end() == "succeeded"
    for request in requests:
        await request.ended(played.turn_id)
        assert request.reading is not None
        assert not request.reading.gaps
        request.reading.agrees_with(played.reading)
    await played.check()


async def test_cursors_of_nobody(scene: Make) -> None:
    """Impossible cursors: 200, a gap first, and the stream goes on."""
    world = await scene()
    played = await play(world)
    await played.say("one ", "two ")
    tab = await world.client.tab()
    request = await tab.watch(played.session_id, 10**15)
    stream = asyncio.create_task(world.client.sse(played.session_id, 999_999))
    first = await request.saw("gap")
    assert first["data"]["data"]["from"] == 10**15
    await played.say("three ", "four")
    await played.end()
    await request.ended(played.turn_id)
    assert request.reading is not None
    assert request.reading.text() == "three four"
    reading = await stream
    assert reading.kinds()[0] == "gap"
    assert (await world.client.page(played.session_id, 10**15)).kinds() == ["gap"]
    await played.check()


async def test_another_sessions_cursor_is_just_a_number(scene: Make) -> None:
    world = await scene()
    long, short = await play(world, "long"), await play(world, "short")
    await long.say(*(f"{i} " for i in range(40)))
    await long.end()
    await short.say("x")
    await short.end()
    tab = await world.client.tab()
    reading = (await tab.watch(short.session_id, long.reading.cursor)).reading
    assert reading is not None
    await tab.requests[list(tab.requests)[-1]].saw("gap")
    again = await resumed(tab, long.session_id, short.reading.cursor, long.reading.cursor)
    again.agrees_with(long.reading)


async def test_an_ended_session_answers_a_cursor_at_its_end_with_nothing(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.end()
    reading = await world.client.sse(played.session_id, played.reading.cursor)
    assert reading.events == []
    assert await everything(world.client, played.session_id)
