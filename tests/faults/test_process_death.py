"""kill -9 and SIGSTOP of real processes under real turns on Ray and Postgres."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from tests.faults.looks import actor_of, epoch_of, get, row, signal_process
from tests.support.facts import eventually
from tests.support.follower import Follower
from tests.support.served import API_KEY, Served
from tests.support.world import World

TIMEOUT_S = 90.0
WORDS = 400


async def stored_answer(served: Served, follower: Follower) -> str:
    data = await get(served, f"/wunder/chat/sessions/{follower.session_id}")
    return str([m["content"] for m in data["messages"] if m["turn_id"] == follower.turn_id][-1])


def is_delta(event: dict[str, Any]) -> bool:
    return bool(event["event"] == "llm_output_delta")


async def test_a_killed_session_actor_is_replaced_and_its_turn_goes_on(served: Served) -> None:
    async with Follower(served.url, API_KEY, "killed-actor") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        pid = await actor_of(served, follower.session_id)
        signal_process(served, pid, signal.SIGKILL)
        assert await follower.finish() == "succeeded"
        assert follower.count("rewind") == 1
        assert follower.count("gap") == 0
        assert follower.text() == await stored_answer(served, follower)


async def test_a_tool_whose_actor_was_killed_is_accepted_once(served: Served, world: World) -> None:
    path = "/hold/killed-tool"
    async with Follower(served.url, API_KEY, "killed-tool") as follower:
        await follower.start(f"fetch http://127.0.0.1:{world.port}{path}")
        await asyncio.to_thread(world.wait_for, path)
        pid = await actor_of(served, follower.session_id)
        signal_process(served, pid, signal.SIGKILL)
        world.release("killed-tool")
        assert await follower.finish() == "succeeded"
        assert follower.count("tool_result") == 1
        assert world.count(path) == 2, "a repeat-safe tool runs again when its outcome is unknown"


async def test_a_killed_gateway_is_replaced_and_readers_resume(served: Served) -> None:
    async with Follower(served.url, API_KEY, "killed-gateway") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        served.kill("Gateway")
        assert await follower.finish() == "succeeded"
        assert follower.resumes >= 1
        assert follower.count("gap") == 0
        assert follower.text() == await stored_answer(served, follower)


async def test_a_killed_directory_comes_back_and_forgets_nothing(served: Served) -> None:
    async with Follower(served.url, API_KEY, "killed-directory") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        served.kill("Directory")
        async with Follower(served.url, API_KEY, "new-session") as other:
            await other.start("count to 5")
            assert await other.finish() == "succeeded"
        assert await follower.finish() == "succeeded"
        assert follower.resumes == 0, "a running stream does not need the directory"
        assert follower.text() == await stored_answer(served, follower)


async def test_a_hung_owner_is_taken_over_and_its_late_writes_are_refused(
    served: Served,
) -> None:
    async with Follower(served.url, API_KEY, "hung-owner") as follower:
        await follower.start(f"count to {WORDS}")
        await follower.until(is_delta)
        pid = await actor_of(served, follower.session_id)
        before = await epoch_of(served, follower.session_id)
        signal_process(served, pid, signal.SIGSTOP)
        try:
            assert await follower.finish() == "succeeded"
        finally:
            signal_process(served, pid, signal.SIGCONT)
        assert await epoch_of(served, follower.session_id) > before
        assert follower.count("rewind") == 1
        assert follower.text() == await stored_answer(served, follower)
        refused = await refused_writes(served, pid)
        assert refused > 0, "the fault did not bite: the woken owner wrote nothing"
        assert await late_events(served, follower) == 0


async def late_events(served: Served, follower: Follower) -> int:
    """Events of the former owner's block of numbers that were stored after the takeover."""
    rewind = next(e["id"] for e in follower.events if e["event"] == "rewind")
    late = """
        SELECT count(*) FROM events e WHERE session_id = $1 AND seq < $2 AND created_us >
            (SELECT created_us FROM events WHERE session_id = $1 AND seq = $2)
    """
    return int(await row(served, late, follower.session_id, rewind))


async def refused_writes(served: Served, pid: int) -> int:
    """What the woken actor says of its writes, once it answers again."""
    refused: list[int] = []

    async def answered() -> bool:
        summary = await get(served, "/wunder/admin/summary")
        woken = [a for a in summary["actors"].values() if a["pid"] == pid and a["leases_lost"] > 0]
        refused.extend(int(a["stale_writes_refused"]) for a in woken)
        return bool(woken)

    await eventually(answered, "the woken owner answers", timeout_s=30)
    return refused[-1]
