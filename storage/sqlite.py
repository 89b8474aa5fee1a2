"""SQLite: one writer, a few readers, every acknowledged write synced, files only we can read.

Several processes open the same file. Inside a process writes are gathered into groups (`sqlite_thread`); between
processes they take turns by `BEGIN IMMEDIATE` and the busy timeout. Each connection has a thread that runs what it is
given in order and to its end, so a cancelled task never leaves a transaction open or a connection half used.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from storage.database import Args, Meter, MigrationRunner, Row, Runner, SilentObserver, StorageObserver, settle
from storage.errors import (
    Conflict,
    InvalidRequest,
    StorageError,
    StorageFull,
    StorageUnavailable,
    WunderError,
)
from storage.settings import StorageSettings
from storage.sqlite_thread import Body, ConnectionThread, Outcome, ThreadRunner, drive
from storage.statements import load

T = TypeVar("T")

MEMORY = ":memory:"
RETRY_AFTER_S = 1.0
WAL_SIZE_LIMIT = 64 * 1024 * 1024
MAX_GROUP = 64
"""Transactions that share a commit; more wait for the next, so that other processes get their turn."""

_READERS = 2
_GRACE_S = 1.0

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PROTOCOL,
}


class _Write:
    """A transaction that waits for its group."""

    __slots__ = ("body", "done", "queued_s", "started")

    def __init__(self, body: Body) -> None:
        self.body = body
        self.started = asyncio.Event()
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queued_s = time.perf_counter()


class SqliteDatabase:
    """A `Database` in one file, or in memory for tests."""

    dialect: Literal["sqlite"] = "sqlite"
    notifies = False

    def __init__(self, path: str, settings: StorageSettings, observer: StorageObserver | None = None) -> None:
        self._path = path
        self._settings = settings
        self._meter = Meter(observer or SilentObserver(), slow_statement_ms=settings.slow_statement_ms)
        self._reads = frozenset(name for name, sql in load("sqlite").items() if sql.startswith("SELECT"))
        self._connections: list[ConnectionThread] = []
        self._writer: ConnectionThread | None = None
        self._reserved: ConnectionThread | None = None
        self._readers: asyncio.Queue[ConnectionThread] | None = None
        self._writes: list[_Write] = []
        self._writing: asyncio.Task[None] | None = None
        self._reserved_lock = asyncio.Lock()

    def array(self, values: Sequence[Any]) -> str:
        return json.dumps(values)

    async def open(self) -> None:
        if self._writer is not None:
            return
        try:
            if self._path != MEMORY:
                await asyncio.to_thread(_prepare_file, Path(self._path))
            self._writer = await self._connect("sqlite-writer")
            if self._path != MEMORY:
                readers: asyncio.Queue[ConnectionThread] = asyncio.Queue()
                for _ in range(min(self._settings.pool_size, _READERS)):
                    readers.put_nowait(await self._connect("sqlite-reader", read_only=True))
                self._readers = readers
        except BaseException as error:
            await self.close()
            if isinstance(error, Exception):
                raise translate(error) from error
            raise

    async def close(self) -> None:
        """Finish the group that is being written; what still waits is told that the store is closed."""
        connections, self._connections = self._connections, []
        self._writer = self._reserved = self._readers = None
        if self._writing is not None:
            await asyncio.wait([self._writing])
        for connection in connections:
            await settle(connection.close())

    async def fetch(self, name: str, *args: Any) -> Sequence[Row]:
        return await self._one(name, lambda runner: runner.fetch(name, *args))

    async def fetchrow(self, name: str, *args: Any) -> Row | None:
        return await self._one(name, lambda runner: runner.fetchrow(name, *args))

    async def execute(self, name: str, *args: Any) -> int:
        return await self._one(name, lambda runner: runner.execute(name, *args))

    async def execute_rows(self, name: str, rows: Sequence[Args]) -> int:
        return await self.transact(lambda runner: runner.execute_rows(name, rows))

    async def execute_reserved(self, name: str, *args: Any) -> int:
        if self._path == MEMORY:
            return await self.execute(name, *args)
        async with self._reserved_lock:
            if self._reserved is None:
                self._reserved = await self._connect("sqlite-lease")
            return await self._on(self._reserved, lambda runner: drive(runner.execute(name, *args)))

    async def transact(self, body: Callable[[Runner], Coroutine[Any, Any, T]]) -> T:
        """Run `body` in the next group: a bounded wait for the writer, then a bounded wait for the group."""
        write = _Write(body)
        self._writes.append(write)
        self._write_next()
        try:
            async with asyncio.timeout(self._settings.pool_wait_s):
                await write.started.wait()
            async with asyncio.timeout(self._settings.command_timeout_s + _GRACE_S):
                result: T = await write.done
        except TimeoutError as error:
            raise self._too_late(write) from error
        except asyncio.CancelledError:
            write.done.cancel()  # nobody waits for it: one that has not begun is left out
            raise
        return result

    async def migrate(self, body: Callable[[MigrationRunner], Coroutine[Any, Any, T]]) -> T:
        write = _Write(body)
        self._writes.append(write)
        self._write_next()
        result: T = await write.done
        return result

    def statements(self) -> Mapping[str, int]:
        return dict(self._meter.counts)

    def notify(self, topic: str) -> None:
        """Nothing: a file tells nobody."""

    async def listen(self, topic: str, on_notified: Callable[[], None]) -> None:
        """Nothing: there is nothing to hear."""

    # -- writing -------------------------------------------------------------------------------------------------

    def _write_next(self) -> None:
        """Write what is queued, unless that is under way; once it has ended, what came meanwhile."""
        if self._writing is None and self._writes:
            self._writing = asyncio.create_task(self._write_groups(), name="sqlite-group")

    async def _write_groups(self) -> None:
        try:
            while self._writes:
                group, self._writes = self._writes[:MAX_GROUP], self._writes[MAX_GROUP:]
                wanted = [write for write in group if not write.done.done()]
                if wanted:
                    self._settle_group(wanted, await self._write_group(wanted))
        finally:
            self._writing = None

    async def _write_group(self, group: list[_Write]) -> list[Outcome]:
        now_s = time.perf_counter()
        for write in group:
            write.started.set()
            self._meter.pool_wait(now_s - write.queued_s)
        bodies = [write.body for write in group]
        try:
            if self._writer is None:
                raise StorageUnavailable("the store is not open")
            outcomes, runner = await self._writer.run(lambda runner: runner.group(bodies))
        except Exception as error:
            return [(None, error)] * len(group)
        self._account(runner)
        return outcomes

    @staticmethod
    def _settle_group(group: list[_Write], outcomes: list[Outcome]) -> None:
        for write, (result, error) in zip(group, outcomes, strict=True):
            if write.done.done():
                continue  # its caller has left
            if error is None:
                write.done.set_result(result)
            else:
                write.done.set_exception(translate(error))

    def _too_late(self, write: _Write) -> StorageUnavailable:
        if write in self._writes:
            self._writes.remove(write)
            message = f"no database connection was free within {self._settings.pool_wait_s} s"
            return StorageUnavailable(message, retry_after_s=RETRY_AFTER_S)
        if self._writer is not None:
            self._writer.interrupt()
        message = f"SQLite did not answer within {self._settings.command_timeout_s} s"
        return StorageUnavailable(message, retry_after_s=RETRY_AFTER_S)

    # -- reading and single statements ---------------------------------------------------------------------------

    async def _one(self, name: str, call: Callable[[Runner], Coroutine[Any, Any, T]]) -> T:
        readers = self._readers
        if readers is None or name not in self._reads:
            return await self.transact(call)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.pool_wait_s):
                reader = await readers.get()
        except TimeoutError as error:
            message = f"no database connection was free within {self._settings.pool_wait_s} s"
            raise StorageUnavailable(message, retry_after_s=RETRY_AFTER_S) from error
        self._meter.pool_wait(time.perf_counter() - started)
        try:
            return await self._on(reader, lambda runner: drive(call(runner)))
        finally:
            readers.put_nowait(reader)

    async def _on(self, thread: ConnectionThread, call: Callable[[ThreadRunner], T]) -> T:
        try:
            async with asyncio.timeout(self._settings.command_timeout_s + self._settings.pool_wait_s):
                result, runner = await thread.run(call)
        except TimeoutError as error:
            thread.interrupt()
            raise translate(error) from error
        except Exception as error:
            raise translate(error) from error
        self._account(runner)
        return result

    def _account(self, runner: ThreadRunner) -> None:
        for name, seconds, failed in runner.timings:
            self._meter.record(name, seconds, failed=failed)

    async def _connect(self, name: str, *, read_only: bool = False) -> ConnectionThread:
        busy_s = self._settings.command_timeout_s
        connection = ConnectionThread(name)
        self._connections.append(connection)
        await connection.open(self._path, timeout_s=busy_s)
        for pragma in _pragmas(busy_s, read_only=read_only):
            await self._configure(connection, pragma)
        return connection

    async def _configure(self, connection: ConnectionThread, pragma: str) -> None:
        """Set a pragma; switching to WAL ignores the busy timeout, so it is tried until the deadline."""
        deadline = time.monotonic() + self._settings.connect_timeout_s
        while True:
            try:
                await connection.run(lambda runner: runner.run("pragma", lambda c: c.execute(pragma).fetchall()))
                return
            except sqlite3.OperationalError as error:
                if not isinstance(translate(error), StorageUnavailable) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.01)


def _pragmas(busy_s: float, *, read_only: bool) -> list[str]:
    return [
        f"PRAGMA busy_timeout = {int(busy_s * 1000)}",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA journal_size_limit = {WAL_SIZE_LIMIT}",
        f"PRAGMA query_only = {'ON' if read_only else 'OFF'}",
    ]


def _prepare_file(path: Path) -> None:
    """Make the folder (0700) and the file (0600; SQLite gives -wal and -shm its mode), or refuse a readable one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IRWXO:
        raise InvalidRequest(
            f"the database file has mode {mode:04o}; others must have no access to it",
            field="storage.url",
            hint=f"chmod 600 {path}*",
        )


def translate(error: Exception) -> Exception:
    """Our error for one of the driver's; its text names the kind of failure, never data."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if isinstance(error, WunderError):
        return error
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(f"the database refused the write: {name}", detail={"constraint": str(error)})
    if code in _FULL:
        return StorageFull("SQLite has no room to write", retry_after_s=RETRY_AFTER_S)
    if isinstance(error, (TimeoutError, OSError)) or (code is not None and code & 0xFF in _UNAVAILABLE):
        return StorageUnavailable(f"SQLite did not answer: {name}", retry_after_s=RETRY_AFTER_S)
    if isinstance(error, ValueError) and "closed" in str(error).lower():
        return StorageUnavailable("the store is closed", retry_after_s=RETRY_AFTER_S)
    return StorageError(f"SQLite error: {name}")
