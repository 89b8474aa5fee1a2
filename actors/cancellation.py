"""`CancellationToken`: event-driven cancellation of one turn. Nobody polls it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """The turn was cancelled; `reason` is "cancelled" or "interrupted"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CancellationToken:
    """Cancelled at most once; callbacks run at once and in the order they were added."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._next = 0

    @property
    def cancelled(self) -> bool:
        return self.reason is not None

    def cancel(self, reason: str = "cancelled") -> None:
        """Cancel; a second call changes nothing."""
        if self.reason is not None:
            return
        self.reason = reason
        callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()

    def add_callback(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Run `callback` on cancel (now, if it was cancelled before); the result removes it again."""
        if self.cancelled:
            callback()
            return lambda: None
        key = self._next
        self._next += 1
        self._callbacks[key] = callback
        return lambda: self._callbacks.pop(key, None)

    def raise_if_cancelled(self) -> None:
        if self.reason is not None:
            raise Cancelled(self.reason)

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """Await it, but raise `Cancelled` as soon as the token is: the awaitable is then cancelled and has ended."""
        if self.reason is not None:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise Cancelled(self.reason)
        task: asyncio.Future[T] = asyncio.ensure_future(awaitable)
        remove = self.add_callback(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            if self.reason is not None and not _self_cancelled():
                raise Cancelled(self.reason) from None
            if not task.done():
                task.cancel()
            raise
        finally:
            remove()


def _self_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
