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

from actors.tools.egress_policy import EgressFailed

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
            raise EgressFailed("Too many names are being looked up at the moment.")
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


def _stopping() -> EgressFailed:
    return EgressFailed("The service is stopping.")


def _result(host: str, family: int, _kind: int, protocol: int, _name: str, address: tuple[Any, ...]) -> ResolveResult:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address[0], port=address[1], family=family, proto=protocol, flags=flags)
