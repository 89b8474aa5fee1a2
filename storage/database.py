"""`Database`: named queries, transactions and a reserved connection, the same over Postgres and SQLite."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from storage.statements import Dialect

T = TypeVar("T")
Args = Sequence[Any]
log = logging.getLogger("wunder.storage")


class Row(Protocol):
    """One row, read by column name."""

    def __getitem__(self, column: str, /) -> Any: ...


class Runner(Protocol):
    """Runs named queries: a database (one transaction per query) or an open transaction."""

    async def fetch(self, name: str, *args: Any) -> Sequence[Row]: ...
    async def fetchrow(self, name: str, *args: Any) -> Row | None: ...
    async def execute(self, name: str, *args: Any) -> int:
        """Run a query; how many rows it changed."""

    async def execute_rows(self, name: str, rows: Sequence[Args]) -> int:
        """Run a query for many rows at once; how many rows it changed."""


class MigrationRunner(Runner, Protocol):
    """A transaction without a deadline that may change the schema."""

    async def execute_script(self, script: str) -> None: ...


class Database(Runner, Protocol):
    """A small pool of connections to one database."""

    @property
    def dialect(self) -> Dialect: ...

    def array(self, values: Sequence[Any]) -> Any:
        """A list as one parameter."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def transact(self, body: Callable[[Runner], Coroutine[Any, Any, T]]) -> T:
        """Run `body` all or nothing, durable on return; rolled back on any exception.

        The body may await nothing but its runner: over SQLite it runs to its end in the writer's thread.
        """

    async def migrate(self, body: Callable[[MigrationRunner], Coroutine[Any, Any, T]]) -> T:
        """Run a transaction that only one process has at a time, without a deadline."""

    async def execute_reserved(self, name: str, *args: Any) -> int:
        """Run a query on a connection that nothing else uses, so that a busy pool cannot starve a lease."""

    def statements(self) -> Mapping[str, int]: ...

    @property
    def notifies(self) -> bool:
        """Whether `notify` reaches other processes; if not, both do nothing."""

    def notify(self, topic: str) -> None:
        """Tell whoever listens, soon; a burst of these is few notifications."""

    async def listen(self, topic: str, on_notified: Callable[[], None]) -> None:
        """Call back at the start and at each notification, until the connection is lost: `StorageUnavailable`."""


class StorageObserver(Protocol):
    """Told about every statement and every wait for a connection; called on the event loop, must not block."""

    def statement(self, name: str, seconds: float, *, failed: bool) -> None: ...
    def pool_wait(self, seconds: float) -> None: ...


class SilentObserver:
    """Observes nothing."""

    def statement(self, name: str, seconds: float, *, failed: bool) -> None: ...
    def pool_wait(self, seconds: float) -> None: ...


class Meter:
    """Counts statements by name, tells the observer, and logs the slow ones."""

    def __init__(self, observer: StorageObserver, *, slow_statement_ms: float) -> None:
        self.counts: dict[str, int] = {}
        self._observer = observer
        self._slow_s = slow_statement_ms / 1000

    async def timed(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        """Await one statement and account for it."""
        started = time.perf_counter()
        failed = True
        try:
            result = await call
            failed = False
            return result
        finally:
            self.record(name, time.perf_counter() - started, failed=failed)

    def pool_wait(self, seconds: float) -> None:
        """Account for a wait for a connection."""
        self._observer.pool_wait(seconds)

    def record(self, name: str, seconds: float, *, failed: bool = False) -> None:
        """Account for one statement."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self._observer.statement(name, seconds, failed=failed)
        if seconds >= self._slow_s:
            log.warning("slow_statement name=%s seconds=%.3f failed=%s", name, seconds, failed)


async def settle(call: Coroutine[Any, Any, T]) -> T:
    """Await something to its end even if the caller is cancelled meanwhile; the cancellation follows."""
    task = asyncio.ensure_future(call)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # raised below, from the task itself
            break
    if cancelled is not None and not task.cancelled():
        task.exception()
        raise cancelled
    return task.result()
