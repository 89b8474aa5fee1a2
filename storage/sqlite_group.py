"""Group commit: write transactions that wait for one another in a process share one BEGIN and one sync.

    A: BEGIN IMMEDIATE  SAVEPOINT ... RELEASE ─┐ (B waits: leave it open)
    B:                  SAVEPOINT ... RELEASE ─┤ (nobody waits: COMMIT)
    A and B go on once that COMMIT is synced ◄─┘

A member that fails is undone alone, back to its savepoint. When the whole transaction is lost (no room, an I/O error)
every member gets that error: nobody is told of a write that was not made durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from storage.errors import StorageUnavailable

MAX_MEMBERS = 64
"""A group is closed at this size, so that the first member does not wait for ever."""


class Writer(Protocol):
    """The connection that may write."""

    async def begin(self) -> None: ...
    async def commit(self) -> None: ...
    async def rollback(self) -> None: ...
    async def savepoint(self) -> None: ...
    async def release(self) -> None: ...
    async def rollback_to(self) -> None: ...


class CommitGroup:
    """The open transaction of a writer, if any. Everything but `waiting` happens under the writer's lock."""

    def __init__(self) -> None:
        self.waiting = 0
        self._members = 0
        self._committed: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        return self._committed is not None

    @asynccontextmanager
    async def member(self, writer: Writer) -> AsyncIterator[asyncio.Future[None]]:
        """Run a body as a part of the open transaction; await the future afterwards, without the lock."""
        if self._committed is None:
            try:
                await writer.begin()
            except BaseException:
                await writer.rollback()
                raise
            self._committed = asyncio.get_running_loop().create_future()
            self._members = 0
        committed = self._committed
        self._members += 1
        try:
            try:
                await writer.savepoint()
                yield committed
            except BaseException:
                await self._undo(writer)
                raise
            await self._keep(writer)
        finally:
            if self.open and (not self.waiting or self._members >= MAX_MEMBERS):
                await self.close(writer)

    async def close(self, writer: Writer) -> None:
        """Commit for everybody who is in."""
        committed, self._committed = self._committed, None
        if committed is None:
            return
        try:
            await writer.commit()
        except BaseException as error:
            await writer.rollback()
            self._fail(committed, error)
            if not isinstance(error, Exception):
                raise
        else:
            if not committed.done():
                committed.set_result(None)

    async def _keep(self, writer: Writer) -> None:
        try:
            await writer.release()
        except Exception:
            await self._give_up(writer)
            raise

    async def _undo(self, writer: Writer) -> None:
        try:
            await writer.rollback_to()
        except Exception:
            # SQLite has thrown the whole transaction away, and with it what the others had written.
            await self._give_up(writer)

    async def _give_up(self, writer: Writer) -> None:
        committed, self._committed = self._committed, None
        await writer.rollback()
        if committed is not None:
            self._fail(committed, StorageUnavailable("SQLite gave the transaction up", retry_after_s=1.0))

    @staticmethod
    def _fail(committed: asyncio.Future[None], error: BaseException) -> None:
        if not committed.done():
            failure = error if isinstance(error, Exception) else StorageUnavailable("the commit was cut off")
            committed.set_exception(failure)
            committed.exception()  # read here: a group whose members were all cancelled has nobody who would
