"""Telling other processes, also those of other clusters, over the database: gathered, so that a burst is one message.

    commit ──► notify(topic) ──► sent at once ──► what comes within PAUSE_S (or while it is sent) is one more

PostgreSQL lets one notifying transaction at a time commit, whatever it notifies of. So a notification is a small
statement of its own, never a part of one that writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from storage.errors import WunderError

READY_TASKS = "wunder_ready_tasks"
"""The topic of tasks that pools may run, of whatever cluster: now, or at their time."""
PAUSE_S = 0.05
log = logging.getLogger("wunder.storage")


class Notifier:
    """At most one notification under way, and at most one per topic in `pause_s`. What is lost nobody repeats."""

    def __init__(self, send: Callable[[str], Awaitable[object]], *, pause_s: float = PAUSE_S) -> None:
        self._send = send
        self._pause_s = pause_s
        self._wanted: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def notify(self, topic: str) -> None:
        """Send soon; returns at once."""
        self._wanted.add(topic)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="notify")

    async def close(self) -> None:
        """Send nothing more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            while self._wanted:
                topics, self._wanted = self._wanted, set()
                for topic in topics:
                    await self._send_once(topic)
                await asyncio.sleep(self._pause_s)
        finally:
            self._task = None

    async def _send_once(self, topic: str) -> None:
        try:
            await self._send(topic)
        except WunderError as error:
            # Whoever listens also looks by itself from time to time.
            log.warning("notify_failed topic=%s error=%s", topic, type(error).__name__)
