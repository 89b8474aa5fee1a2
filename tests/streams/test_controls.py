"""Negative controls: with a defence switched off, the checker must go red; and on Postgres all is the same."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from actors.events import EXPIRING_KINDS
from actors.replies import Event
from actors.session_runner import SessionRunner
from gateway.subscriptions import Subscription, Topic
from storage.records import SessionId
from tests.streams.scene import Scene, play
from tests.support.postgres import PostgresServer
from tests.support.reading import Reading

Make = Callable[..., Awaitable[Scene]]


class Everything:
    """Contains whatever is asked for."""

    def __contains__(self, _: object) -> bool:
        return True


async def test_without_rewind_the_checker_is_red(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: SessionRunner) -> None:
        return

    monkeypatch.setattr(SessionRunner, "begin", silent)
    world = await scene()
    played = await play(world)
    await played.say("never ", "taken back")
    await world.crash_owner(played.session_id)
    take = await world.models.take("a")
    take.say("again")
    take.finish()
    await played.watch.ended(played.turn_id)
    with pytest.raises(AssertionError):
        await played.check()
    with pytest.raises(AssertionError):
        await world.whole(played.session_id)


async def test_with_a_rewind_that_is_ignored_the_checker_is_red(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reading, "_rewind", lambda *_: None)
    world = await scene()
    played = await play(world)
    await played.say("never ", "taken back")
    await world.crash_owner(played.session_id)
    take = await world.models.take("a")
    take.say("again")
    take.finish()
    await played.watch.ended(played.turn_id)
    with pytest.raises(AssertionError, match="!="):
        await played.check()


async def test_without_gap_the_checker_is_red(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.subscriptions.JUMP_KINDS", Everything())
    world = await scene()
    played = await play(world)
    await played.say("a ", "b ", "c")
    await played.end()
    await world.passivate(played.session_id)
    name = next(iter(world.cluster.gateways))
    await world.cluster.stores[name].delete_events(kinds=EXPIRING_KINDS, before_us=2**60, limit=1000)
    await world.cluster.stop_gateway(name)
    await world.cluster.start_gateway()
    with pytest.raises(AssertionError, match="silent gap"):
        await world.client.at(world.cluster.url).sse(played.session_id, 0)


class _Sink:
    full = False

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def put(self, frame: bytes) -> None:
        self.kinds.append(frame.decode())

    async def writable(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("defended", [True, False])
async def test_a_lost_owners_topic_serves_nobody(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that this suite found: live readers skipped what came between two owners, and its rewind."""
    if not defended:
        monkeypatch.setattr(Topic, "leave", lambda topic: topic.joined.clear())
    topic, sink = Topic(SessionId("s"), 1000), _Sink()
    topic.join("old", 1, 5)
    subscription = Subscription(
        topic, sink, lambda e: e.kind.encode(), None, cursor=5, now_us=lambda: 0, on_end=lambda _: None
    )
    subscription.live = True
    topic.leave()
    topic.publish(Event(SessionId("s"), 2, 4098, 4098, "t", "llm_output_delta", b"{}"))
    subscription.end()
    assert (sink.kinds == []) == defended


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="wunder-postgres-"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    server.start()
    yield server
    server.remove()


async def test_a_turn_and_every_resume_on_postgres(scene: Make, postgres: PostgresServer) -> None:
    world = await scene(storage_url=postgres.create_database(), sessions={"buffer_events": 16})
    played = await play(world)
    await played.say(*(f"wörd{i} " for i in range(40)))
    await played.end()
    await played.check()
    for after in range(played.reading.cursor + 1):
        (await world.client.sse(played.session_id, after)).agrees_with(played.reading)
        (await world.client.page(played.session_id, after)).agrees_with(played.reading)


async def test_crashes_and_queues_on_postgres(scene: Make, postgres: PostgresServer) -> None:
    world = await scene(storage_url=postgres.create_database())
    played = await play(world)
    await played.say("Not ", "kept.")
    queued = await played.tab.start("calculate 6*7", played.session_id)
    await world.crash_owner(played.session_id)
    take = await world.models.take("a")
    take.say("Once ", "more.")
    take.finish()
    assert queued.ack is not None
    await played.watch.ended(queued.ack["turn_id"])
    assert played.reading.text(played.turn_id) == "Once more."
    await played.check()
    await world.passivate(played.session_id)
    more = await played.tab.start("echo bye", played.session_id)
    assert more.ack is not None
    await played.watch.ended(more.ack["turn_id"])
    await world.whole(played.session_id)


async def test_cancels_on_postgres(scene: Make, postgres: PostgresServer) -> None:
    world = await scene(storage_url=postgres.create_database())
    for number in range(5):
        played = await play(world, f"p{number}")
        played.take.say("some")
        played.take.finish()
        receipt = await world.client.cancel(played.session_id, played.turn_id)
        await played.watch.ended(played.turn_id)
        assert receipt["status"] == (await world.whole(played.session_id)).status(played.turn_id)
