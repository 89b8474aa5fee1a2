"""Names of outbound requests are looked up by threads of their own, a bounded number at a time.

A look-up cannot be stopped: who stops waiting leaves its thread busy until the system gives up. Names that somebody
chose to be slow must not use up the process's shared threads, on which everything else waits.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from actors.tools.egress_policy import EgressFailed, EgressUnreachable

THREADS = 4
MAX_WAITING = 28


class LookupResolver(AbstractResolver):
    """Asks the system; `EgressFailed` when too many names are being looked up already."""

    def __init__(
        self,
        *,
        threads: int = THREADS,
        max_waiting: int = MAX_WAITING,
        lookup: Callable[..., list[Any]] | None = None,
    ) -> None:
        self._lookup = lookup or socket.getaddrinfo
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="egress-lookup")
        self._room = threading.BoundedSemaphore(threads + max_waiting)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self._room.acquire(blocking=False):
            raise EgressUnreachable("Too many names are being looked up at the moment.")
        try:
            work = self._threads.submit(
                self._lookup, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except RuntimeError:
            self._room.release()
            raise _stopping() from None
        # Room is made when the look-up has ended (or was dropped before it began), not when nobody waits any more.
        work.add_done_callback(lambda _: self._room.release())
        try:
            answers = await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _stopping() from None
        return [_result(host, *answer) for answer in answers]

    async def close(self) -> None:
        """Look-ups that wait are dropped; one that runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class SharedLookups(AbstractResolver):
    """Who asks for a name that is being looked up gets that answer: a name that hangs uses up one thread, not many."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner
        self._running: dict[tuple[str, int, int], asyncio.Task[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        key = (host, port, int(family))
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._inner.resolve(host, port, family), name=f"lookup-{host[:100]}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._inner.close()

    def _ended(self, key: tuple[str, int, int], done: asyncio.Task[list[ResolveResult]]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever asked may have left


def _stopping() -> EgressFailed:
    return EgressFailed("The service is stopping.")


def _result(host: str, family: int, _kind: int, protocol: int, _name: str, address: tuple[Any, ...]) -> ResolveResult:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address[0], port=address[1], family=family, proto=protocol, flags=flags)
