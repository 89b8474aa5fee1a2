"""Waiting that a cancellation ends at once, without a task for each wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.cancellation import CancellationToken


class Pause:
    """`async with Pause(token) as pause: await pause.until(when)`; `Cancelled` when the token is."""

    def __init__(self, token: CancellationToken) -> None:
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._remove: Callable[[], object] | None = None

    async def __aenter__(self) -> Pause:
        self._remove = self._token.add_callback(self._wake)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._remove is not None:
            self._remove()

    async def until(self, when: float) -> None:
        """Wait until the loop's clock shows `when`; gives other tasks a turn even if that is past."""
        self._token.raise_if_cancelled()
        if when <= self._loop.time():
            await asyncio.sleep(0)
        else:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_at(when, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
        self._token.raise_if_cancelled()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
