"""Validated tokens in memory, so that the live path reads no database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from actors.clock import Clock
from gateway.rate_limit import RecentMap
from storage.records import TokenRecord, UserRecord

Found = tuple[TokenRecord, UserRecord]


class TokenCache:
    """Gives a token for at most `keep_s` after it was found in the store; one look-up at a time per token.

    A token that ends while it is looked up is looked up again: an answer from before the end is never given.
    """

    def __init__(
        self,
        find: Callable[[str, int], Awaitable[Found | None]],
        clock: Clock,
        *,
        keep_s: float,
        max_entries: int,
    ) -> None:
        self._find = find
        self._clock = clock
        self._found: RecentMap[str, Found] = RecentMap(clock, keep_s=keep_s, max_entries=max_entries)
        self._loads: dict[str, asyncio.Future[Found | None]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def peek(self, token_hash: str) -> Found | None:
        """The token if it is known to be valid without a look-up."""
        found = self._found.get(token_hash)
        if found is not None and found[0].expires_us <= self._clock.now_us():
            self._found.pop(token_hash)
            return None
        return found

    async def get(self, token_hash: str) -> Found | None:
        """The unexpired token and its user."""
        while (found := self.peek(token_hash)) is None:
            load = self._loads.get(token_hash)
            if load is None:
                return await self._load(token_hash)
            await asyncio.wait([load])
            if not load.cancelled():
                return load.result()
        return found

    async def refresh(self, token_hash: str) -> Found | None:
        """The token as the store has it now, whatever is known here."""
        load = self._loads.get(token_hash)
        if load is None:
            found = await self._load(token_hash)
            if found is None:
                self._found.pop(token_hash)
            return found
        await asyncio.wait([load])
        return await self.get(token_hash) if load.cancelled() else load.result()

    def forget(self, token_hash: str) -> None:
        """The token ended, or its user changed."""
        self._found.pop(token_hash)
        load = self._loads.pop(token_hash, None)
        if load is not None:
            load.cancel()

    def sweep(self) -> None:
        """Forget what is too old to be given."""
        self._found.sweep()

    async def _load(self, token_hash: str) -> Found | None:
        load: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._loads[token_hash] = load
        try:
            found = await self._find(token_hash, self._clock.now_us())
            if not load.cancelled():
                if found is not None:
                    self._found.put(token_hash, found)
                load.set_result(found)
                return found
        finally:
            if self._loads.get(token_hash) is load:
                del self._loads[token_hash]
            load.cancel()  # if it has no result: whoever waited looks for itself
        return await self.get(token_hash)
