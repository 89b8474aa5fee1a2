"""A connection's queue: what counts as progress of its reader."""

from __future__ import annotations

from gateway.out_queue import OutQueue
from tests.support.manual_clock import ManualClock


async def test_a_reader_that_takes_a_little_has_not_stalled(clock: ManualClock) -> None:
    unread = 0
    queue = OutQueue(100, clock.monotonic_s, unread=lambda: unread)
    queue.put(b"." * 80)
    queue.put(b"." * 80)
    first, second = await queue.take()
    queue.sending(len(first))
    queue.written(len(first))
    queue.sending(len(second))
    unread = 160  # both are with the kernel, or before it
    assert queue.depth_bytes == 80
    for _ in range(10):
        clock.advance(20)
        unread -= 1
        assert queue.stalled_s() == 0
    clock.advance(20)
    assert queue.stalled_s() == 20


async def test_one_frame_of_a_batch_is_progress(clock: ManualClock) -> None:
    queue = OutQueue(100, clock.monotonic_s)
    for _ in range(5):
        queue.put(b"." * 80)
    for frame in await queue.take():
        clock.advance(20)
        assert queue.stalled_s() == 20
        queue.written(len(frame))
        assert queue.stalled_s() == 0
    assert queue.depth_bytes == 0
    await queue.writable()


async def test_after_the_end_nothing_is_queued(clock: ManualClock) -> None:
    queue = OutQueue(100, clock.monotonic_s)
    queue.put(b"a")
    queue.finish()
    queue.put(b"b")
    assert await queue.take() == [b"a"]
    queue.written()
    assert await queue.take() == []
