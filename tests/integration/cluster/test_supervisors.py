"""Two supervisors of one cluster: one stands by, takes over when the first dies, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import signal

from tests.support.joined import KINDS, READY, Joined, answer
from tests.support.ray_head import RayHead

TIMEOUT_S = 180.0


async def test_one_stands_by_and_takes_over(head: RayHead, joined: Joined) -> None:
    head.start()
    first = joined
    await asyncio.to_thread(first.start)
    await answer(first)
    before = first.pids()

    second = first.another()
    await asyncio.to_thread(second.start, "standing by")
    await answer(first)
    assert first.keeps(before), "it touches nothing"

    first.end(signal.SIGKILL)
    await asyncio.to_thread(second.wait_for, READY)
    await answer(second)
    assert second.keeps(before), "all of it was adopted"

    third = second.another()
    await asyncio.to_thread(third.start, "standing by")
    assert third.end(signal.SIGTERM) == 0, "one that stands by ends at once"
    assert second.keeps(before)

    assert second.end(signal.SIGTERM) == 0
    assert second.pids() == {kind: set() for kind in KINDS}


async def test_the_actors_may_outlive_their_supervisor(head: RayHead, joined: Joined) -> None:
    head.start()
    first = joined
    first.sections["server"]["leave_actors"] = True
    await asyncio.to_thread(first.start)
    await answer(first)
    before = first.pids()
    assert first.end(signal.SIGTERM) == 0
    await answer(first)
    assert first.keeps(before)
    second = first.another()
    await asyncio.to_thread(second.start)
    assert second.keeps(before)
