"""Waiting for facts: no test sleeps, and none waits longer than it says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

WAIT_S = 10.0
_POLL_S = 0.004


async def within(awaitable: Awaitable[T], what: str, timeout_s: float = WAIT_S) -> T:
    """Await it; an `AssertionError` that names `what` when it takes too long."""
    try:
        async with asyncio.timeout(timeout_s):
            return await awaitable
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what}") from None


async def eventually(fact: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    """Look at a fact (plain or awaited) that nobody announces, every few milliseconds, until it is true."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        result = fact()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert loop.time() < deadline, f"not within {timeout_s:g} s: {what}"
        await tick(_POLL_S)


async def tick(seconds: float) -> None:
    """Let the loop run for a moment."""
    moment = asyncio.Event()
    handle = asyncio.get_running_loop().call_later(seconds, moment.set)
    try:
        await moment.wait()
    finally:
        handle.cancel()
