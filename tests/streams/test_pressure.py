"""Small bounds: slow readers, overflowing lines, evicted buffers, a writer that drops, numbers that run out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.errors import StorageUnavailable
from actors.events import EXPIRING_KINDS
from actors.messages import Batch
from tests.streams.scene import Scene, play, together
from tests.support.facts import eventually, within
from tests.support.readers import Request, Tab
from tests.support.reading import Reading

Make = Callable[..., Awaitable[Scene]]

WRITES = {
    *("begin", "commit", "savepoint", "release", "renew_owner"),
    *("append_events", "fence_sessions", "insert_events"),  # the fence is read inside of the write
}
TINY_BUFFER = {"buffer_events": 16, "event_writer": {"flush_interval_ms": 1.0, "batch_size": 7}}


async def test_a_reader_that_never_reads_is_cut_off_and_harms_nobody(scene: Make) -> None:
    world = await scene(gateway={"slow_client_timeout_s": 0.2})
    played = await play(world)
    socket = await world.client.http.ws_connect(f"{world.client.url}/wunder/ws")
    payload = {"session_id": played.session_id, "after_event_id": 0}
    await socket.send_json({"type": "watch", "request_id": "w", "payload": payload})
    gateway = next(iter(world.cluster.gateways.values()))
    await eventually(lambda: gateway.topics.subscriptions == 3, "it watches")
    for _ in range(12):  # more than the kernel hides on both sides
        await played.say(*("x" * 100_000 for _ in range(10)))
    deepest = max(c.queue.depth_bytes for c in gateway.connections._open)  # type: ignore[attr-defined]
    assert deepest < 262_144 + 2 * 131_072 + 110_000
    opened = gateway.connections._open
    await eventually(lambda: any(c.stalled_s() > 0.2 for c in opened), "it has taken nothing for a while")
    await gateway.connections._keep()
    await eventually(lambda: len(gateway.connections) == 1, "it is cut off")
    await eventually(lambda: gateway.topics.subscriptions == 2, "it is gone")
    await played.say("others ", "go on")
    await played.end()
    await played.check()
    await socket.close()


async def test_a_slow_reader_catches_up(scene: Make) -> None:
    world = await scene(gateway={"connection_queue_bytes": 16_384})
    played = await play(world)
    socket = await world.client.http.ws_connect(f"{world.client.url}/wunder/ws", max_msg_size=0)
    payload = {"session_id": played.session_id, "after_event_id": 0}
    await socket.send_json({"type": "watch", "request_id": "w", "payload": payload})
    for number in range(4):
        await played.say(*(f"{number}.{i} " + "x" * 60_000 for i in range(10)))
    await played.end()
    late = Tab(socket, "ada")
    world.client.tabs.append(late)

    request = late.requests["w"] = Request(late, "w")
    request.reading = Reading(0)
    await request.ended(played.turn_id)
    request.reading.agrees_with(played.reading)
    assert not request.reading.gaps
    await played.check()


async def test_a_tiny_connection_queue(scene: Make, rng: random.Random) -> None:
    world = await scene(gateway={"connection_queue_bytes": 16_384}, sessions={"line_interval_ms": 0.0})
    played = await play(world)
    tab = await world.client.tab()
    watches = [await tab.watch(played.session_id) for _ in range(5)]
    for number in range(60):
        played.take.say(*("y" * rng.randint(1, 900) for _ in range(rng.randint(1, 20))), f"{number} ")
        await asyncio.sleep(0)
    await played.end()
    for watch in watches:
        await watch.ended(played.turn_id)
        assert watch.reading is not None
        watch.reading.agrees_with(played.reading)
        assert not watch.reading.gaps
    await played.check()


@pytest.mark.parametrize("more", [0, 1, 40])
async def test_a_line_that_overflows(scene: Make, more: int) -> None:
    world = await scene(sessions={"line_max_bytes": 65_536, "line_interval_ms": 0.0})
    played = await play(world)
    await played.say("first ")
    held = asyncio.Event()

    async def hold(_: str, command: object) -> None:
        if isinstance(command, Batch):
            await held.wait()

    world.cluster.reach.before.append(hold)
    played.take.say("in flight ")
    runner = world.runner_of(played.session_id)
    line = next(iter(runner.stream.lines.values()))
    for number in range(200):
        played.take.say(f"{number} " + "z" * 2000)
    await eventually(lambda: line._resync, "overflow")
    latest = runner.stream.latest
    await eventually(lambda: runner.stream.latest == latest or False, "")
    played.take.say(*(f"more {n} " for n in range(more)))
    await eventually(lambda: len(played.take.said) == 202 + more, "said")
    world.cluster.reach.before.clear()
    held.set()
    assert await played.end() == "succeeded"
    assert not played.reading.gaps
    assert played.reading.text() == "".join(played.take.said)
    await played.check()


async def test_an_overflow_that_leaves_nothing_on_the_line(scene: Make) -> None:
    """The cut sessions are named in an empty batch; what comes after it may not be taken for the next event."""
    world = await scene(sessions={"line_max_bytes": 65_536, "line_interval_ms": 0.0})
    played = await play(world)
    await played.say("first ")
    runner = world.runner_of(played.session_id)
    line = next(iter(runner.stream.lines.values()))
    held = asyncio.Event()

    async def hold(_: str, command: object) -> None:
        if isinstance(command, Batch):
            await held.wait()

    world.cluster.reach.before.append(hold)
    played.take.say("a ")
    await eventually(lambda: runner.stream.latest == 4, "in flight")
    played.take.say("b ", "q" * 70_000)
    await eventually(lambda: line._resync and not line.depth, "all is cut")
    world.cluster.reach.before.clear()
    held.set()
    played.take.say("c")
    assert await played.end() == "succeeded"
    assert not played.reading.gaps
    assert played.reading.text() == "".join(played.take.said)
    await played.check()


async def test_resume_from_the_store_inside_of_segments(scene: Make) -> None:
    world = await scene(sessions=TINY_BUFFER)
    played = await play(world)
    await played.say(*(f"{i} " for i in range(60)))
    await world.stored(played.session_id, played.reading.cursor)
    await world.cluster.start_gateway()
    other = world.client.at(list(world.cluster.gateways.values())[1].address)
    tab = await other.tab()
    here = played.reading.cursor
    resumes = [await tab.resume(played.session_id, after) for after in range(here + 1)]
    for request in resumes:
        await request.reached(here)
    await played.say("more")
    await played.end()
    for request in resumes:
        await request.ended(played.turn_id)
        assert request.reading is not None
        request.reading.agrees_with(played.reading)
        assert not request.reading.gaps
    assert any("first_id" in e["data"] for r in resumes if r.reading for e in r.reading.events)
    assert world.cluster.gateways[list(world.cluster.gateways)[1]].topics.pages_store > 0
    await played.check()


async def test_followers_of_a_tiny_buffer_while_it_is_published(scene: Make, rng: random.Random) -> None:
    world = await scene(sessions=TINY_BUFFER, gateway={"topic_buffer_bytes": 4096, "connection_queue_bytes": 16_384})
    played = await play(world)
    tab = await world.client.tab()
    watches = []
    for number in range(300):
        played.take.say(f"{number} ")
        if number % 30 == 0:
            watches.append(await tab.watch(played.session_id, rng.randint(0, played.reading.cursor)))
    await played.end()
    for watch in watches:
        await watch.ended(played.turn_id)
        assert watch.reading is not None
        watch.reading.agrees_with(played.reading)
        assert not watch.reading.gaps
    await played.check()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_latest"])
async def test_what_the_writer_drops_is_announced(scene: Make, policy: str) -> None:
    writer = {"max_pending": 8, "flush_interval_ms": 60_000.0, "delta_overflow": policy}
    world = await scene(sessions={"event_writer": writer})
    played = await play(world)
    await played.say(*(f"{i} " for i in range(40)))
    played.take.call("calculator", {"expression": "1+1"})
    played.take.finish()
    second = await world.models.take("a")
    second.say("end")
    second.finish()
    await played.watch.ended(played.turn_id)
    await played.check()
    page = await world.client.page(played.session_id, 0)
    page.agrees_with(played.reading)
    assert page.gaps
    await world.passivate(played.session_id)
    await world.cluster.stop_gateway(next(iter(world.cluster.gateways)))
    await world.cluster.start_gateway()
    client = world.client.at(world.cluster.url)
    for after in range(played.reading.cursor):
        reading = await client.sse(played.session_id, after)
        reading.agrees_with(played.reading)
        (await client.page(played.session_id, after)).agrees_with(played.reading)
    assert (await client.sse(played.session_id, 0)).gaps


async def test_what_retention_removed_is_announced(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say(*(f"{i} " for i in range(10)))
    await played.end()
    await world.passivate(played.session_id)
    name = next(iter(world.cluster.gateways))
    await world.cluster.stores[name].delete_events(kinds=EXPIRING_KINDS, before_us=2**60, limit=1000)
    await world.cluster.stop_gateway(name)
    await world.cluster.start_gateway()
    client = world.client.at(world.cluster.url)
    tab = await client.tab()
    for after in range(played.reading.cursor):
        stream, page = await client.sse(played.session_id, after), await client.page(played.session_id, after)
        watch = await tab.watch(played.session_id, after)
        await watch.reached(played.reading.cursor)
        for reading in (stream, page, watch.reading):
            assert reading is not None
            reading.agrees_with(played.reading)
            assert bool(reading.gaps) == (after < 12)
    assert page.kinds()[-1] == "turn_terminal"


async def test_numbers_are_reserved_before_they_run_out(scene: Make) -> None:
    world = await scene(sessions={"seq_block": 64})
    played = await play(world)
    for number in range(5):
        await played.say(*(f"{number}.{i} " for i in range(100)))
    played.take.call("calculator", {"expression": "2+2"})
    played.take.finish()
    second = await world.models.take("a")
    second.say(*(f"{i} " for i in range(200)))
    second.finish()
    await played.watch.ended(played.turn_id)
    assert [e["id"] for e in played.reading.events] == list(range(1, played.reading.cursor + 1))
    await played.check()
    await world.whole(played.session_id)


async def test_words_that_come_during_a_slow_commit(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question is being queued while the model talks on: nothing is said out of order or without a number."""
    world = await scene(sessions={"seq_block": 64})
    played = await play(world)
    await played.say("before ")
    _, host = world.host_of(played.session_id)
    store, release, reached = host._services.store, asyncio.Event(), asyncio.Event()
    original = store.accept_turn

    async def slow(*args: Any, **kwargs: Any) -> Any:
        reached.set()
        await release.wait()
        return await original(*args, **kwargs)

    monkeypatch.setattr(store, "accept_turn", slow)
    queued = asyncio.create_task(played.tab.start("echo later", played.session_id))
    await reached.wait()
    played.take.say(*(f"{i} " for i in range(400)))
    stream = world.runner_of(played.session_id).stream
    await eventually(lambda: len(stream._held) > 64, "words are held back")
    release.set()
    request = await queued
    assert await played.end() == "succeeded"
    assert request.ack is not None
    await played.watch.ended(request.ack["turn_id"])
    assert [e["id"] for e in played.reading.events] == list(range(1, played.reading.cursor + 1))
    await played.check()
    await world.whole(played.session_id)


async def test_the_live_path_reads_no_database(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    tab = await world.client.tab()
    watches = [await tab.watch(played.session_id) for _ in range(5)]
    name = next(iter(world.cluster.gateways))
    host_name, _ = world.host_of(played.session_id)
    await played.say("warm ")
    before = {n: dict(world.cluster.stores[n].statements()) for n in (name, host_name)}
    for number in range(20):
        await played.say(*(f"{number}.{i} " for i in range(20)))
    await world.stored(played.session_id, played.reading.cursor)
    after = {n: dict(world.cluster.stores[n].statements()) for n in (name, host_name)}
    assert after[name] == before[name]
    used = {k for k, count in after[host_name].items() if count != before[host_name].get(k, 0)}
    assert used <= WRITES, used
    await played.end()
    for watch in watches:
        await watch.ended(played.turn_id)
    await played.check()


async def test_a_database_that_is_away_for_a_while_loses_nothing(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:

    world = await scene(sessions={"event_writer": {"flush_interval_ms": 1.0}, "buffer_events": 16})
    played = await play(world)
    _, host = world.host_of(played.session_id)
    store = host._services.store
    failures = 0

    def away(name: str) -> None:
        original = getattr(store, name)

        async def sometimes(*args: Any, **kwargs: Any) -> Any:
            nonlocal failures
            if failures < 6:
                failures += 1
                raise StorageUnavailable("away")
            return await original(*args, **kwargs)

        monkeypatch.setattr(store, name, sometimes)

    away("append_events")
    await played.say(*(f"{i} " for i in range(100)))
    await eventually(lambda: failures >= 3, "refused a few times")
    failures = 3
    away("finish_turn")
    tab = await world.client.tab()
    late = await tab.watch(played.session_id)
    assert await played.end() == "succeeded"
    await late.ended(played.turn_id)
    assert late.reading is not None
    late.reading.agrees_with(played.reading)
    await played.check()
    await world.whole(played.session_id)


async def test_many_sessions_at_once(scene: Make, rng: random.Random) -> None:
    world = await scene(sessions={"max_active": 6, "max_crashes": 9})
    tab = await world.client.tab()
    questions = ("count to 30", "calculate 6*7", "think about it", "parallel calculate 1+1 and 2+2", "fail after 3")
    starts = await together(*(tab.start(rng.choice(questions)) for _ in range(40)))

    async def check(request) -> None:  # type: ignore[no-untyped-def]
        await request.ended(request.ack["turn_id"])
        await world.whole(request.ack["session_id"])

    await within(together(*(check(request) for request in starts)), "all ended", 20.0)
