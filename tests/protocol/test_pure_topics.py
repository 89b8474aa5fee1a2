"""Topics and subscriptions, whatever the line does: each reader gets every event after its cursor once and in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import WunderError
from actors.events import encode_json, envelope
from actors.replies import Event
from gateway.protocol import EventFrames
from gateway.subscriptions import Subscription, Topic
from storage.records import SessionId

SESSION = SessionId("ses_1")
STEPS = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 5)),
    st.tuples(st.just("lose"), st.integers(1, 3)),
    st.tuples(st.sampled_from(["leave", "join", "move", "fill", "drain"]), st.just(0)),
    st.tuples(st.just("run"), st.integers(1, 4)),
    st.tuples(st.just("read"), st.integers(0, 30)),
)


class Sink:
    """A connection's queue that tests fill and drain; it counts how far it was overfilled."""

    def __init__(self) -> None:
        self.full = False
        self.frames: list[dict[str, Any]] = []
        self._room = asyncio.Event()
        self._room.set()

    def put(self, frame: bytes) -> None:
        self.frames.append(json.loads(frame)["payload"])

    async def writable(self) -> None:
        await self._room.wait()

    def set_full(self, full: bool) -> None:
        self.full = full
        if full:
            self._room.clear()
        else:
            self._room.set()


class Owner:
    """The session's log: what was said, in pages; `forgotten` is what retention took."""

    def __init__(self) -> None:
        self.said: list[Event] = []
        self.epoch = 1

    def say(self) -> Event:
        seq = len(self.said) + 1
        body = envelope(SESSION, "t", 0, encode_json({"n": seq}))
        self.said.append(Event(SESSION, self.epoch, seq, seq, "t", "llm_output_delta", body))
        return self.said[-1]

    async def page(self, session_id: SessionId, after: int, topic: Topic) -> list[Event]:
        await asyncio.sleep(0)
        return self.said[after : after + 3]


class Reader:
    """One subscription and what it got."""

    def __init__(self, topic: Topic, owner: Owner, cursor: int, *, until_seq: int | None = None) -> None:
        self.cursor, self.sink = cursor, Sink()
        self.ends: list[WunderError | None] = []
        self.subscription = Subscription(
            topic,
            self.sink,
            EventFrames("r"),
            owner,
            cursor=cursor,
            now_us=lambda: 0,
            until_seq=until_seq,
            on_end=self.ends.append,
        )
        self.subscription.start()

    @property
    def ids(self) -> list[int]:
        return [payload["id"] for payload in self.sink.frames]


async def turns_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(fact: Callable[[], bool]) -> None:
    """Everything here is in memory: what has not happened after so many turns of the loop never will."""
    for _ in range(2_000):
        if fact():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


async def play(steps: list[tuple[str, int]], ring_bytes: int) -> tuple[Owner, list[Reader]]:
    """A history of a line: events said, lost on the way, owners lost and found, readers that come and stall."""
    owner, topic, readers = Owner(), Topic(SESSION, ring_bytes), []
    topic.join("actor", owner.epoch, 0)
    for step, number in steps:
        match step:
            case "say":
                for _ in range(number):
                    topic.publish(owner.say())
            case "lose":
                for _ in range(number):
                    owner.say()
            case "leave":
                topic.leave()
            case "join":
                topic.join("actor", owner.epoch, len(owner.said))
            case "move":
                topic.leave()
                owner.epoch += 1
                topic.join(f"actor-{owner.epoch}", owner.epoch, len(owner.said))
            case "fill" | "drain":
                for reader in readers:
                    reader.sink.set_full(step == "fill")
            case "run":
                await turns_of_the_loop(number)
            case "read":
                readers.append(Reader(topic, owner, min(number, len(owner.said))))
    for reader in readers:
        reader.sink.set_full(False)
    topic.leave()
    topic.join("last", owner.epoch + 1, len(owner.said))
    owner.epoch += 1
    await until(lambda: all(reader.subscription.cursor >= len(owner.said) for reader in readers))
    await turns_of_the_loop(5)
    topic.publish(owner.say())
    assert all(reader.subscription.live for reader in readers)
    for reader in readers:
        reader.subscription.end()
    return owner, readers


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=30), st.sampled_from([1, 400, 100_000]))
def test_every_reader_gets_everything_once_and_in_order(steps: list[tuple[str, int]], ring_bytes: int) -> None:
    owner, readers = asyncio.run(play(steps, ring_bytes))
    for reader in readers:
        assert reader.ids == list(range(reader.cursor + 1, len(owner.said) + 1))
        assert {payload["event"] for payload in reader.sink.frames} <= {"llm_output_delta"}
        assert reader.ends == [None]


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20))
def test_a_bounded_reader_ends_once_at_its_bound(said: int, cursor: int, more: int) -> None:
    async def run() -> Reader:
        owner, topic = Owner(), Topic(SESSION, 1_000)
        topic.join("actor", 1, 0)
        for _ in range(said):
            topic.publish(owner.say())
        reader = Reader(topic, owner, min(cursor, said), until_seq=said)
        await until(lambda: bool(reader.ends))
        for _ in range(more):
            topic.publish(owner.say())
        await turns_of_the_loop(5)
        assert not topic.subscriptions
        return reader

    reader = asyncio.run(run())
    assert reader.ends == [None]
    assert reader.ids == list(range(min(cursor, said) + 1, said + 1))


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 10), st.integers(1, 10))
def test_what_is_gone_is_said_by_one_gap(kept_from: int, missing: int, kept: int) -> None:
    class Forgetful(Owner):
        async def page(self, session_id: SessionId, after: int, topic: Topic) -> list[Event]:
            await asyncio.sleep(0)
            gone = range(kept_from + 1, kept_from + missing + 1)
            return [e for e in self.said if e.seq > after and e.seq not in gone][:3]

    async def run() -> Reader:
        owner, topic = Forgetful(), Topic(SESSION, 1)
        for _ in range(kept_from + missing + kept):
            owner.say()
        topic.join("actor", 1, len(owner.said))
        reader = Reader(topic, owner, 0, until_seq=len(owner.said))
        await until(lambda: bool(reader.ends))
        return reader

    reader = asyncio.run(run())
    gaps = [payload for payload in reader.sink.frames if payload["event"] == "gap"]
    last_gone = kept_from + missing
    assert [gap["data"]["data"]["from"] for gap in gaps] == [kept_from + 1]
    assert [(gap["id"], gap["data"]["data"]["oldest"]) for gap in gaps] == [(last_gone, last_gone + 1)]
    assert reader.ids == [*range(1, kept_from + 1), *range(last_gone, last_gone + kept + 1)]
