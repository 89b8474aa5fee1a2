"""Numbers, order and durability of what a session says, over a real store with faults."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.errors import StaleEpoch, StorageUnavailable
from actors.event_buffer import EventBuffer
from actors.replies import Event
from actors.session import Numbers
from actors.session_stream import RETRY_FOR_S, Draft, SessionStream
from actors.settings import EventWriterSettings
from storage.records import EventRecord, TurnId
from storage.store import AsyncStorageBackend
from storage.stream_event_writer import StreamEventWriter
from tests.conformance.store import make
from tests.support.facts import eventually
from tests.support.flaky_store import FlakyStore
from tests.support.manual_clock import ManualClock

TURN = TurnId("t1")
HEAD = {"model_round": 1}


class FakeLine:
    """Where a stream's events go."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.dropped: list[str] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    def drop(self, session_id: str) -> None:
        self.dropped.append(session_id)

    @property
    def seen(self) -> list[tuple[int, str]]:
        return [(event.seq, event.kind) for event in self.events]


class Said:
    """A stream under test and what it speaks to."""

    def __init__(self, store: FlakyStore, stream: SessionStream, writer: StreamEventWriter, clock: ManualClock) -> None:
        self.store, self.stream, self.writer, self.clock = store, stream, writer, clock
        self.line = FakeLine()
        stream.lines["gateway"] = self.line  # type: ignore[assignment]

    def delta(self, text: str = "x") -> None:
        self.stream.delta(TURN, "llm_output_delta", HEAD, "delta", text)

    async def final(self, kind: str = "final") -> bool:
        return await self.stream.commit([Draft(kind, TURN, {})], self.stream.append)

    async def stored(self) -> list[tuple[int, int, str]]:
        rows = await self.store.read_events(make.SESSION, after=0, limit=1000, max_bytes=1 << 20)
        return [(row.first_seq, row.seq, row.kind) for row in rows]


@pytest.fixture
async def said(store: AsyncStorageBackend, clock: ManualClock) -> Said:
    return await open_stream(store, clock)


async def open_stream(store: AsyncStorageBackend, clock: ManualClock, reserved: int = 1000, block: int = 1000) -> Said:
    flaky = FlakyStore(store)
    fence = await make.fence(store)
    buffer = EventBuffer(base=0, max_events=10_000, max_bytes=1 << 24)
    writer = StreamEventWriter(
        flaky,  # type: ignore[arg-type]
        EventWriterSettings(),
        clock.monotonic_s,
        on_stored=lambda _, seq: buffer.mark_stored(seq),
        on_stale=lambda *_: None,
    )
    numbers = Numbers(first=1, reserved=reserved, block=block)
    stream = SessionStream(fence, numbers, buffer, writer, flaky, clock)  # type: ignore[arg-type]
    return Said(flaky, stream, writer, clock)


async def test_a_delta_is_announced_at_once_and_stored_behind(said: Said) -> None:
    said.delta("a")
    said.delta("b")
    assert said.line.seen == [(1, "llm_output_delta"), (2, "llm_output_delta")]
    assert await said.stored() == []
    await said.writer.flush()
    assert await said.stored() == [(1, 2, "llm_output_delta")]
    assert said.stream.buffer.stored == 2


async def test_a_final_is_announced_only_once_it_is_durable(said: Said) -> None:
    gate = said.store.hold("append_events")
    committing = asyncio.ensure_future(said.final())
    await said.store.at_gate.wait()
    assert said.line.seen == []
    assert said.stream.latest == 0
    gate.set()
    assert await committing
    assert said.line.seen == [(1, "final")]
    assert await said.stored() == [(1, 1, "final")]


async def test_a_commit_stores_what_was_announced_before_it_in_the_same_transaction(said: Said) -> None:
    said.delta("a")
    said.stream.announce(Draft("tool_call", TURN, {}))
    await said.final()
    assert said.store.calls["append_events"] == 1
    assert await said.stored() == [(1, 1, "llm_output_delta"), (2, 2, "tool_call"), (3, 3, "final")]
    assert (said.stream.buffer.stored, said.writer.depth) == (3, 0)


async def test_what_is_said_during_a_commit_comes_after_it_in_order(said: Said) -> None:
    gate = said.store.hold("append_events")
    committing = asyncio.ensure_future(said.final())
    await said.store.at_gate.wait()
    said.delta("a")
    said.stream.announce(Draft("progress", TURN, {}))
    said.delta("b")
    assert said.line.seen == []
    gate.set()
    await committing
    expected = [(1, "final"), (2, "llm_output_delta"), (3, "progress"), (4, "llm_output_delta")]
    assert said.line.seen == expected
    await said.writer.flush()
    assert [(seq, kind) for _, seq, kind in await said.stored()] == expected


async def test_a_write_that_wrote_nothing_gives_its_numbers_back(said: Said) -> None:
    async def nothing(_: Sequence[EventRecord]) -> bool:
        return False

    said.delta()
    assert not await said.stream.commit([Draft("queued", TURN, {}), Draft("queued", TURN, {})], nothing)
    said.delta()
    assert [seq for seq, _ in said.line.seen] == [1, 2]


async def test_a_write_that_wrote_nothing_leaves_no_hole_in_the_store(said: Said) -> None:
    async def nothing(_: Sequence[EventRecord]) -> bool:
        return False

    said.delta("announced before")
    await said.stream.commit([Draft("queued", TURN, {})], nothing)
    said.delta("announced after")
    await said.writer.flush()
    assert await said.stored() == [(1, 1, "llm_output_delta"), (2, 2, "llm_output_delta")]


async def test_a_commit_is_tried_again_while_the_database_is_away(said: Said) -> None:
    said.store.fail("append_events", 2)
    assert await said.final()
    assert said.store.calls["append_events"] == 3
    assert said.line.seen == [(1, "final")]


async def test_a_database_that_stays_away_ends_the_stream(said: Said) -> None:
    async def away(_: Sequence[EventRecord]) -> bool:
        said.clock.advance(RETRY_FOR_S)
        raise StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        await said.stream.commit([Draft("final", TURN, {})], away)
    assert said.stream.closed
    said.delta()
    said.stream.announce(Draft("progress", TURN, {}))
    assert said.line.seen == []
    with pytest.raises(StorageUnavailable, match="given up"):
        await said.final()


@pytest.mark.parametrize("error", [StaleEpoch("another owner"), RuntimeError("a bug")])
async def test_any_other_error_ends_the_stream_at_once(said: Said, error: Exception) -> None:
    said.store.fail("append_events", 1, error)
    with pytest.raises(type(error)):
        await said.final()
    assert said.stream.closed
    assert said.line.seen == []


async def test_a_cancelled_commit_ends_the_stream(said: Said) -> None:
    said.store.hold("append_events")
    committing = asyncio.ensure_future(said.final())
    await said.store.at_gate.wait()
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    assert said.stream.closed


async def test_a_newer_owner_is_noticed_when_what_is_left_is_stored(said: Said, store: AsyncStorageBackend) -> None:
    said.delta()
    await make.fence(store)
    with pytest.raises(StaleEpoch):
        await said.stream.settle()
    assert await said.stored() == []


async def test_commits_take_turns(said: Said) -> None:
    gate = said.store.hold("append_events")
    first = asyncio.ensure_future(said.final("first"))
    second = asyncio.ensure_future(said.final("second"))
    await said.store.at_gate.wait()
    assert said.store.calls["append_events"] == 1
    gate.set()
    await asyncio.gather(first, second)
    assert said.line.seen == [(1, "first"), (2, "second")]


async def test_numbers_are_reserved_durably_before_they_are_used(
    store: AsyncStorageBackend, clock: ManualClock
) -> None:
    said = await open_stream(store, clock, reserved=1000, block=1000)
    for _ in range(2500):
        await said.stream.room()
        said.delta()
        reserved = (await store.get_session(make.SESSION)).reserved_seq  # type: ignore[union-attr]
        assert said.stream.latest <= reserved
        await eventually(lambda: said.stream.numbers.left > 100, "a block was reserved")
    assert said.store.calls["reserve_seq"] <= 4


async def test_a_commit_reserves_what_it_needs(store: AsyncStorageBackend, clock: ManualClock) -> None:
    said = await open_stream(store, clock, reserved=1, block=100)
    await said.stream.commit([Draft("final", TURN, {})] * 50, said.stream.append)
    assert said.line.seen[-1] == (50, "final")
    assert said.stream.numbers.reserved == 101


async def test_room_waits_for_numbers_and_an_owner_without_them_ends(
    store: AsyncStorageBackend, clock: ManualClock
) -> None:
    said = await open_stream(store, clock, reserved=10, block=100)
    gate = said.store.hold("reserve_seq")
    room = asyncio.ensure_future(said.stream.room())
    await said.store.at_gate.wait()
    assert not room.done()
    gate.set()
    await room
    assert said.stream.numbers.left == 110

    said.stream.numbers.next = said.stream.numbers.reserved
    said.store.fail("reserve_seq", 1, StaleEpoch("another owner"))
    with pytest.raises(StaleEpoch):
        await said.stream.room()


async def test_a_long_commit_does_not_use_numbers_up(store: AsyncStorageBackend, clock: ManualClock) -> None:
    said = await open_stream(store, clock, reserved=200, block=200)
    gate = said.store.hold("append_events")
    committing = asyncio.ensure_future(said.final())
    await said.store.at_gate.wait()
    for index in range(1000):
        await said.stream.room()
        said.delta(str(index))
    gate.set()
    await committing
    assert [seq for seq, _ in said.line.seen] == list(range(1, 1002))


async def test_a_tool_that_talks_too_much_loses_words_but_no_numbers(
    store: AsyncStorageBackend, clock: ManualClock
) -> None:
    said = await open_stream(store, clock, reserved=100, block=100)
    gate, _ = said.store.hold("append_events"), said.store.hold("reserve_seq")
    committing = asyncio.ensure_future(said.final())
    await said.store.at_gate.wait()
    for _ in range(1000):
        said.stream.say(TURN, "tool_output_delta", HEAD, "delta", "blah")
    gate.set()
    await committing
    assert [seq for seq, _ in said.line.seen] == list(range(1, len(said.line.seen) + 1))
    assert 1 < len(said.line.seen) < 100
    said.stream.close()


async def test_closing_tells_followers_and_stores_nothing_more(said: Said) -> None:
    said.delta()
    said.stream.close()
    said.delta()
    assert said.line.dropped == [make.SESSION]
    assert said.stream.lines == {}
    assert said.writer.depth == 0
    assert [seq for seq, _ in said.line.seen] == [1]


async def test_a_close_during_a_reservation_leaves_no_task_behind(
    store: AsyncStorageBackend, clock: ManualClock
) -> None:
    said = await open_stream(store, clock, reserved=10, block=100)
    said.store.hold("reserve_seq")
    room = asyncio.ensure_future(said.stream.room())
    await said.store.at_gate.wait()
    said.stream.close()
    with pytest.raises(asyncio.CancelledError):
        await room
    names: list[Any] = [task.get_name() for task in asyncio.all_tasks()]
    assert "reserve-seq" not in names
