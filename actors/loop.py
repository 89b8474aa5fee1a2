"""The one loop: `run_once` again and again with an interval, jitter, and a back-off after failures."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from actors.errors import WunderError
from actors.logs import log

_MAX_DOUBLINGS = 20
"""An outage may be long: 2**1024 is more than a float can be."""


class Loop:
    """Runs `run_once` every `interval_s` (± jitter), sooner when woken; ends before its owner does."""

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[None]],
        *,
        interval_s: float,
        jitter: float = 0.2,
        max_backoff_s: float = 15.0,
    ) -> None:
        self._name = name
        self._run_once = run_once
        self._interval_s = interval_s
        self._jitter = jitter
        self._max_backoff_s = max_backoff_s
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    def wake(self) -> None:
        self._wake.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._run_once()
                failures = 0
            except WunderError as error:
                failures += 1
                log.warning("loop_failed", loop=self._name, error=type(error).__name__, message=error.message)
            except Exception as error:
                failures += 1
                log.exception("loop_failed", error, loop=self._name)
            backoff_s = self._interval_s * 2 ** min(failures, _MAX_DOUBLINGS)
            backoff_s = min(backoff_s, max(self._max_backoff_s, self._interval_s))
            delay_s = backoff_s if failures else self._interval_s
            spread = 1 + self._jitter * (random.random() * 2 - 1)  # noqa: S311 - jitter is no secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s * spread):
                    await self._wake.wait()
            self._wake.clear()
