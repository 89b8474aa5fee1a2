"""Waiting for facts: where no event tells of a change, a condition is looked at again until it holds or time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LOOK_EVERY_S = 0.02


async def pause(seconds: float) -> None:
    """A client's own pace between two tries (not a guess at how long something takes)."""
    woken = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, woken.set)
    await woken.wait()


async def eventually(holds: Callable[[], bool | Awaitable[bool]], *, timeout_s: float = 20.0) -> None:
    """Return once `holds()`; `TimeoutError` when it has not within `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while True:
            result = holds()
            if await result if isinstance(result, Awaitable) else result:
                return
            await pause(LOOK_EVERY_S)
