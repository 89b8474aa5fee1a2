"""A store with faults: named methods wait at a gate or fail before, or after, they do their work."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from storage.errors import StorageUnavailable
from storage.store import AsyncStorageBackend


class FlakyStore:
    """Everything of the real store; `calls` counts, `failures[method]` are raised one by one before the work."""

    def __init__(self, store: AsyncStorageBackend) -> None:
        self._store = store
        self.calls: dict[str, int] = {}
        self.failures: dict[str, list[Exception]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.at_gate = asyncio.Event()

    def fail(self, method: str, times: int = 1, error: Exception | None = None) -> None:
        self.failures[method] = [error or StorageUnavailable("the test says so") for _ in range(times)]

    def hold(self, method: str) -> asyncio.Event:
        """Calls of this method wait until the gate is set."""
        self.at_gate.clear()
        return self.gates.setdefault(method, asyncio.Event())

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._store, method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[method] = self.calls.get(method, 0) + 1
            gate = self.gates.get(method)
            if gate is not None:
                self.at_gate.set()
                await gate.wait()
            if self.failures.get(method):
                raise self.failures[method].pop(0)
            return await real(*args, **kwargs)

        return call if inspect.iscoroutinefunction(real) else real
