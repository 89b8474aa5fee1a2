"""The write-behind: thresholds, order, the barrier, overflow, failures. Its store is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.settings import EventWriterSettings
from storage.errors import StorageUnavailable
from storage.records import EventBatch, EventRecord, Fence, SessionId, TurnId
from storage.segments import decode_json
from storage.stream_event_writer import MAX_PARTS, StreamEventWriter
from tests.support.facts import eventually
from tests.support.manual_clock import ManualClock

A, B = Fence(SessionId("a"), 1), Fence(SessionId("b"), 1)
TURN = TurnId("t1")
NEVER_MS = 1e7


class ListStore:
    """Takes batches; waits at `gate`, refuses `failures` times, and calls `stale` sessions stale."""

    def __init__(self) -> None:
        self.batches: list[Sequence[EventBatch]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.writing = asyncio.Event()
        self.failures = 0
        self.tries = 0
        self.stale: list[SessionId] = []

    async def append_events(self, batches: Sequence[EventBatch]) -> list[SessionId]:
        self.tries += 1
        self.writing.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("away")
        self.batches.append(batches)
        return self.stale

    def rows(self, fence: Fence) -> list[EventRecord]:
        return [e for batches in self.batches for b in batches if b.fence == fence for e in b.events]


class Bench:
    """A writer with what it told its owner."""

    def __init__(self, **settings: Any) -> None:
        self.store = ListStore()
        self.clock = ManualClock()
        self.stored: list[tuple[str, int]] = []
        self.gone: list[tuple[str, int]] = []
        self.writer = StreamEventWriter(
            self.store,  # type: ignore[arg-type]
            EventWriterSettings(**{"flush_interval_ms": NEVER_MS, **settings}),
            self.clock.monotonic_s,
            on_stored=lambda s, seq: self.stored.append((s, seq)),
            on_stale=lambda s, epoch: self.gone.append((s, epoch)),
        )

    def delta(
        self, seq: int, fence: Fence = A, text: str = "x", kind: str = "llm_output_delta", round_: int = 1
    ) -> None:
        self.writer.add_delta(fence, TURN, kind, {"model_round": round_}, "delta", text, seq, 0)

    def event(self, seq: int, fence: Fence = A) -> None:
        record = EventRecord(
            session_id=fence.session_id, first_seq=seq, seq=seq, turn_id=TURN, kind="progress", data=b"{}", created_us=0
        )
        self.writer.add(fence, record)

    def spans(self, fence: Fence = A) -> list[tuple[int, int]]:
        return [(row.first_seq, row.seq) for row in self.store.rows(fence)]


# -- thresholds ----------------------------------------------------------------------------------------------------


async def test_a_full_batch_is_written_at_once() -> None:
    bench = Bench(batch_size=3)
    bench.writer.start()
    bench.delta(1)
    bench.delta(2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert bench.store.tries == 0
    bench.delta(3)
    await eventually(lambda: bench.spans() == [(1, 3)], "the batch was written")
    await bench.writer.stop()


async def test_a_little_is_written_after_the_interval() -> None:
    bench = Bench(flush_interval_ms=5)
    bench.writer.start()
    bench.delta(1)
    await eventually(lambda: bench.spans() == [(1, 1)], "the event was written")
    assert bench.stored == [("a", 1)]
    await bench.writer.stop()


async def test_sessions_share_a_transaction() -> None:
    bench = Bench()
    bench.delta(1, A)
    bench.delta(1, B)
    await bench.writer.flush()
    assert len(bench.store.batches) == 1
    assert bench.spans(A) == bench.spans(B) == [(1, 1)]
    assert await bench.writer.flush()
    assert len(bench.store.batches) == 1


async def test_what_comes_during_a_write_is_the_next_batch() -> None:
    bench = Bench(batch_size=1)
    bench.writer.start()
    bench.store.gate.clear()
    bench.delta(1)
    await bench.store.writing.wait()
    bench.delta(2)
    bench.delta(3)
    bench.store.gate.set()
    bench.delta(4)
    await bench.writer.stop()
    assert bench.spans() == [(1, 1), (2, 4)]


# -- order and coalescing ------------------------------------------------------------------------------------------


async def test_deltas_coalesce_until_something_else_comes() -> None:
    bench = Bench()
    for seq in (1, 2):
        bench.delta(seq, text="ab")
    bench.event(3)
    bench.delta(4)
    bench.delta(5, round_=2)
    bench.delta(6, kind="tool_output_delta")
    bench.delta(8, kind="tool_output_delta")
    await bench.writer.flush()
    assert bench.spans() == [(1, 2), (3, 3), (4, 4), (5, 5), (6, 6), (8, 8)]
    first = bench.store.rows(A)[0]
    assert decode_json(first.data) == {"delta": "abab", "model_round": 1}
    assert decode_json(first.parts or b"") == [["delta", 2], ["delta", 2]]


async def test_a_segment_has_a_greatest_length() -> None:
    bench = Bench()
    for seq in range(1, 2 * MAX_PARTS + 2):
        bench.delta(seq)
    await bench.writer.flush()
    assert bench.spans() == [(1, MAX_PARTS), (MAX_PARTS + 1, 2 * MAX_PARTS), (2 * MAX_PARTS + 1, 2 * MAX_PARTS + 1)]


async def test_depth_and_age_are_of_what_is_not_stored() -> None:
    bench = Bench()
    assert bench.writer.age_s() == 0.0
    bench.delta(1)
    bench.clock.advance(2)
    bench.delta(2)
    bench.event(1, B)
    bench.clock.advance(1)
    assert (bench.writer.depth, bench.writer.age_s()) == (3, 3.0)
    bench.store.gate.clear()
    flushing = asyncio.ensure_future(bench.writer.flush())
    await bench.store.writing.wait()
    assert (bench.writer.depth, bench.writer.age_s()) == (3, 3.0)
    bench.store.gate.set()
    await flushing
    assert (bench.writer.depth, bench.writer.age_s()) == (0, 0.0)


# -- the barrier ---------------------------------------------------------------------------------------------------


async def test_the_barrier_takes_what_is_unwritten() -> None:
    bench = Bench()
    bench.delta(1)
    bench.event(2)
    bench.delta(1, B)
    taken = await bench.writer.take(A.session_id)
    assert [(e.first_seq, e.seq) for e in taken] == [(1, 1), (2, 2)]
    assert bench.writer.depth == 1
    await bench.writer.flush()
    assert bench.spans(A) == []
    assert await bench.writer.take(A.session_id) == []


@pytest.mark.parametrize("failures", [0, 1])
async def test_the_barrier_waits_for_a_write_that_is_under_way(failures: int) -> None:
    bench = Bench()
    bench.store.failures = failures
    bench.store.gate.clear()
    bench.delta(1)
    flushing = asyncio.ensure_future(bench.writer.flush())
    await bench.store.writing.wait()
    bench.delta(2)
    taking = asyncio.ensure_future(bench.writer.take(A.session_id))
    assert await bench.writer.take(B.session_id) == []
    assert not taking.done()
    bench.store.gate.set()
    assert await flushing is not bool(failures)
    taken = [e.seq for e in await taking]
    assert taken == ([1, 2] if failures else [2])
    assert bench.writer.depth == 0


# -- failures ------------------------------------------------------------------------------------------------------


async def test_what_the_store_refused_is_kept_in_order() -> None:
    bench = Bench()
    bench.store.failures = 1
    bench.store.gate.clear()
    bench.delta(1)
    flushing = asyncio.ensure_future(bench.writer.flush())
    await bench.store.writing.wait()
    bench.clock.advance(5)
    bench.delta(2)
    bench.delta(1, B)
    bench.store.gate.set()
    assert not await flushing
    assert (bench.writer.depth, bench.writer.age_s(), bench.writer.counts.failures) == (3, 5.0, 1)
    assert await bench.writer.flush()
    assert bench.spans(A) == [(1, 1), (2, 2)]
    assert (bench.writer.depth, bench.spans(B)) == (0, [(1, 1)])


async def test_pressure_does_not_defeat_the_back_off() -> None:
    bench = Bench(batch_size=1, flush_interval_ms=NEVER_MS)
    bench.store.failures = 1000
    bench.writer.start()
    bench.delta(1)
    await eventually(lambda: bench.writer.counts.failures == 1, "the first write was refused")
    for seq in range(2, 50):
        bench.delta(seq)
        await asyncio.sleep(0)
    assert bench.store.tries == 1
    bench.store.failures = 0
    await bench.writer.stop()
    assert sum(last - first + 1 for first, last in bench.spans()) == 49


async def test_stopping_writes_the_rest_and_gives_up_when_it_is_refused() -> None:
    bench = Bench()
    bench.writer.start()
    bench.delta(1)
    await bench.writer.stop()
    assert bench.spans() == [(1, 1)]

    refused = Bench()
    refused.store.failures = 1000
    refused.writer.start()
    refused.delta(1)
    await refused.writer.stop()
    assert refused.store.tries == 1


async def test_a_stale_owner_is_told_and_the_others_are_stored() -> None:
    bench = Bench()
    bench.store.stale = [A.session_id]
    bench.delta(1, A)
    bench.delta(1, B)
    await bench.writer.flush()
    assert (bench.gone, bench.stored) == ([("a", 1)], [("b", 1)])
    assert (bench.writer.depth, bench.writer.counts.stale) == (0, 1)


async def test_a_new_epoch_starts_without_the_old_ones_leftovers() -> None:
    bench = Bench()
    newer = Fence(A.session_id, 2)
    bench.store.failures = 1
    bench.store.gate.clear()
    bench.delta(1)
    flushing = asyncio.ensure_future(bench.writer.flush())
    await bench.store.writing.wait()
    bench.delta(5, newer)
    bench.store.gate.set()
    await flushing
    await bench.writer.flush()
    assert (bench.spans(A), bench.spans(newer)) == ([], [(5, 5)])
    assert bench.writer.depth == 0


async def test_a_forgotten_session_is_not_written() -> None:
    bench = Bench()
    bench.delta(1)
    bench.writer.forget(A.session_id)
    bench.writer.forget(B.session_id)
    assert await bench.writer.flush()
    assert (bench.spans(), bench.writer.depth) == ([], 0)


# -- overflow ------------------------------------------------------------------------------------------------------


async def test_drop_oldest_gives_up_old_deltas_but_no_other_event() -> None:
    bench = Bench(max_pending=4, delta_overflow="drop_oldest")
    bench.event(1)
    bench.delta(2)
    bench.delta(3)
    bench.event(4)
    bench.delta(5)
    bench.event(6)
    await bench.writer.flush()
    assert bench.spans() == [(1, 1), (4, 4), (5, 5), (6, 6)]
    assert bench.writer.counts.dropped == 2


async def test_drop_oldest_takes_from_the_session_that_speaks_first() -> None:
    bench = Bench(max_pending=2, delta_overflow="drop_oldest")
    bench.delta(1, A)
    bench.delta(1, B)
    bench.delta(2, B)
    bench.delta(3, Fence(SessionId("c"), 1))
    await bench.writer.flush()
    assert bench.spans(A) == []
    assert bench.spans(B) == [(2, 2)]


async def test_drop_oldest_with_nothing_to_drop_drops_the_new_one() -> None:
    bench = Bench(max_pending=1, delta_overflow="drop_oldest")
    bench.event(1)
    bench.delta(2)
    await bench.writer.flush()
    assert bench.spans() == [(1, 1)]


async def test_drop_latest_refuses_new_deltas() -> None:
    bench = Bench(max_pending=2, delta_overflow="drop_latest")
    for seq in range(1, 5):
        bench.delta(seq)
    bench.event(5)
    await bench.writer.flush()
    bench.delta(6)
    await bench.writer.flush()
    assert bench.spans() == [(1, 2), (5, 5), (6, 6)]
    assert bench.writer.counts.dropped == 2


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_latest"])
async def test_only_blocking_makes_a_producer_wait(policy: Any) -> None:
    bench = Bench(max_pending=1, delta_overflow=policy)
    bench.delta(1)
    assert await bench.writer.room()


async def test_block_with_timeout_waits_for_room() -> None:
    bench = Bench(max_pending=2, delta_overflow="block_with_timeout", block_timeout_s=10)
    bench.delta(1)
    assert await bench.writer.room()
    bench.delta(2)
    waiting = asyncio.ensure_future(bench.writer.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await bench.writer.flush()
    assert await waiting


async def test_block_with_timeout_gives_up_waiting_and_then_drops() -> None:
    bench = Bench(max_pending=1, delta_overflow="block_with_timeout", block_timeout_s=0.001)
    bench.delta(1)
    assert not await bench.writer.room()
    bench.delta(2)
    assert bench.writer.counts.dropped == 1
    assert bench.writer.depth == 1


async def test_a_crash_loses_what_was_unwritten() -> None:
    bench = Bench()
    bench.writer.start()
    bench.delta(1)
    bench.writer.crash()
    assert bench.writer._task is not None
    with pytest.raises(asyncio.CancelledError):
        await bench.writer._task
    assert bench.spans() == []


async def test_a_segment_that_may_be_stored_grows_no_more() -> None:
    """The store refused it, but may have it: a longer one under another number would hold its text twice."""
    bench = Bench()
    bench.store.failures = 1
    bench.delta(1)
    bench.delta(2)
    assert not await bench.writer.flush()
    bench.delta(3)
    assert await bench.writer.flush()
    assert bench.spans(A) == [(1, 2), (3, 3)]
