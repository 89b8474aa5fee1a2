"""What waits in the database, as probes and people ask for it: looked up once a second at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from actors.channels.retries import RULES
from actors.clock import Clock
from actors.errors import WunderError
from storage.store import AsyncStorageBackend

T = TypeVar("T")

KEPT_S = 1.0
"""Anybody may ask for /metrics: an answer serves for so long."""
_TIMEOUT_S = 2.0
_TASK_STATES = ("queued", "waiting", "running")
_OUTBOX_STATES = ("pending", "sending", "dead")
_OTHER = "other"
TaskStates = dict[str, tuple[int, float]]
"""How many tasks are in each state that is not an end, and how long ago the oldest of them was accepted (s)."""
OutboxStates = dict[tuple[str, str], tuple[int, float]]
"""The same of deliveries, by channel and state."""


class Cached(Generic[T]):
    """An answer of the database; `empty` while it does not answer."""

    def __init__(self, clock: Clock, read: Callable[[], Awaitable[T]], empty: T) -> None:
        self._clock = clock
        self._read = read
        self._empty = empty
        self._found = empty
        self._found_s = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self) -> T:
        async with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._found_s >= KEPT_S:
                try:
                    async with asyncio.timeout(_TIMEOUT_S):
                        self._found = await self._read()
                except (WunderError, TimeoutError):
                    return self._empty
                self._found_s = now_s
            return self._found


class Waiting:
    """Tasks and deliveries that somebody waits for."""

    def __init__(self, store: AsyncStorageBackend, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.tasks: Cached[TaskStates] = Cached(clock, self._tasks, {})
        self.outbox: Cached[OutboxStates] = Cached(clock, self._outbox, {})

    async def _tasks(self) -> TaskStates:
        found = await self._store.queue_states()
        ages = {state: (tasks, self._age_s(oldest_us)) for state, (tasks, oldest_us) in found.items()}
        return {state: ages.get(state, (0, 0.0)) for state in _TASK_STATES}

    async def _outbox(self) -> OutboxStates:
        """Every state of each channel that has anything; channels that nobody knows are one."""
        states: OutboxStates = {}
        for (channel, state), (items, oldest_us) in (await self._store.outbox_states()).items():
            name = channel if channel in RULES else _OTHER
            for known in _OUTBOX_STATES:
                states.setdefault((name, known), (0, 0.0))
            before, oldest_s = states[(name, state)]
            states[(name, state)] = (before + items, max(oldest_s, self._age_s(oldest_us)))
        return states

    def _age_s(self, since_us: int) -> float:
        return max(0, self._clock.now_us() - since_us) / 1e6
