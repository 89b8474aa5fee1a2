"""`wunder serve --address`: what a supervisor leaves when it is killed is adopted if it is fit, else replaced."""

from __future__ import annotations

import signal

import psutil

from tests.support.joined import KINDS, Joined, answer
from tests.support.ray_head import RayHead

TIMEOUT_S = 180.0


async def test_the_leftovers_of_a_killed_supervisor(head: RayHead, joined: Joined) -> None:
    head.start()
    joined.start()
    await answer(joined)
    joined.end(signal.SIGKILL)
    left = joined.pids()

    joined.start()  # its own gateway still has the port
    await answer(joined)
    assert joined.keeps(left), "all of it was fit"

    joined.end(signal.SIGKILL)
    joined.sections["sessions"]["max_active"] = 7
    joined.start()
    await answer(joined)
    now = joined.pids()
    assert {kind: now[kind] & pids for kind, pids in left.items()} == {kind: set() for kind in KINDS}, "other settings"
    assert [len(now[kind]) for kind in ("Directory", "Janitor", "Gateway")] == [1, 1, 1]

    joined.end(signal.SIGKILL)
    hung = psutil.Process(next(iter(now["Gateway"])))
    hung.send_signal(signal.SIGSTOP)
    joined.start()
    await answer(joined)
    assert hung.pid not in joined.pids()["Gateway"]

    assert joined.end(signal.SIGTERM) == 0
    assert joined.pids() == {kind: set() for kind in KINDS}
