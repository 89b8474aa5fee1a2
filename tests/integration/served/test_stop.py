"""SIGTERM: what runs is finished, what was said is there after the next start."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.follower import Follower
from tests.support.served import API_KEY, Served


async def test_a_stopping_service_finishes_turns_and_keeps_sessions(tmp_path: Path) -> None:
    service = Served(tmp_path, f"sqlite:///{tmp_path}/data/wunder.db", {"sessions": {"max_actors_per_node": 1}})
    await asyncio.to_thread(service.start)
    follower = Follower(service.url, API_KEY, "stopper")
    async with follower:
        await follower.start("count to 100")
        await follower.until(lambda e: e["event"] == "llm_output_delta")
    assert await asyncio.to_thread(service.stop) == 0
    await asyncio.to_thread(service.start)
    try:
        async with follower:
            assert await follower.resume_until_end() == "succeeded"
            assert follower.count("rewind") == 0, "the turn was finished before the service ended"
            assert follower.count("gap") == 0
    finally:
        await asyncio.to_thread(service.stop)
