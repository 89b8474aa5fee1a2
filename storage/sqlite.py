"""SQLite through aiosqlite: one writer, a few readers, every acknowledged write synced, files only we can read.

Several processes open the same file. Writers take turns: inside a process by a lock, between processes by
`BEGIN IMMEDIATE` and the busy timeout. Each connection has a thread that runs what it is given in order; so a
cancelled task's statement still ends before the ROLLBACK that follows it, and no connection is left half used.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite

from storage.database import Args, Meter, Row, SilentObserver, StorageObserver, settle
from storage.errors import (
    Conflict,
    InvalidRequest,
    StorageError,
    StorageFull,
    StorageUnavailable,
    WunderError,
)
from storage.settings import StorageSettings
from storage.sqlite_group import CommitGroup
from storage.statements import load

T = TypeVar("T")

MEMORY = ":memory:"
RETRY_AFTER_S = 1.0
WAL_SIZE_LIMIT = 64 * 1024 * 1024

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


class SqliteTransaction:
    """Named queries on one connection."""

    def __init__(self, connection: aiosqlite.Connection, meter: Meter, *, timeout_s: float) -> None:
        self._connection = connection
        self._meter = meter
        self._timeout_s = timeout_s
        self._queries = load("sqlite")

    async def fetch(self, name: str, *args: Any) -> Sequence[Row]:
        return await self._run(name, self._fetch(self._queries[name], args))

    async def fetchrow(self, name: str, *args: Any) -> Row | None:
        rows = await self.fetch(name, *args)
        return rows[0] if rows else None

    async def execute(self, name: str, *args: Any) -> int:
        return await self._run(name, self._execute(self._queries[name], args))

    async def execute_rows(self, name: str, rows: Sequence[Args]) -> int:
        return await self._run(name, self._execute_rows(self._queries[name], rows)) if rows else 0

    async def execute_script(self, script: str) -> None:
        """Run statements without parameters, inside the open transaction."""
        for statement in _split(script):
            await self._run("execute_script", self._execute(statement, ()))

    async def begin(self) -> None:
        """Open the transaction with the right to write."""
        await self._run("begin", self._execute("BEGIN IMMEDIATE", ()))

    async def savepoint(self) -> None:
        """Mark where a member of a group begins, whatever happens to the caller."""
        await settle(self._run("savepoint", self._execute("SAVEPOINT member", ()), bounded=False))

    async def release(self) -> None:
        """The member is done, whatever happens to the caller: its changes belong to the transaction."""
        await settle(self._run("release", self._execute("RELEASE member", ()), bounded=False))

    async def rollback_to(self) -> None:
        """Undo one member, whatever happens to the caller."""
        await settle(self._undo_member())

    async def _undo_member(self) -> None:
        for statement in ("ROLLBACK TO member", "RELEASE member"):
            await self._run("rollback_to", self._execute(statement, ()), bounded=False)

    async def commit(self) -> None:
        """Close the transaction, whatever happens to the caller; an error if SQLite has given it up before."""
        await settle(self._run("commit", self._execute("COMMIT", ()), bounded=False))

    async def rollback(self) -> None:
        """Undo the transaction if there is one, whatever happens to the caller."""
        await settle(self._run("rollback", self._connection.rollback(), bounded=False))

    async def _fetch(self, sql: str, args: Args) -> Sequence[Row]:
        return list(await self._connection.execute_fetchall(sql, args))

    async def _execute(self, sql: str, args: Args) -> int:
        return max(0, (await self._connection.execute(sql, args)).rowcount)

    async def _execute_rows(self, sql: str, rows: Sequence[Args]) -> int:
        return max(0, (await self._connection.executemany(sql, rows)).rowcount)

    async def _run(self, name: str, call: Coroutine[Any, Any, T], *, bounded: bool = True) -> T:
        try:
            async with asyncio.timeout(self._timeout_s if bounded else None):
                return await self._meter.timed(name, call)
        except TimeoutError as error:
            await self._connection.interrupt()
            raise translate(error) from error
        except Exception as error:
            raise translate(error) from error


class SqliteDatabase:
    """A `Database` in one file, or in memory for tests."""

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, path: str, settings: StorageSettings, observer: StorageObserver | None = None) -> None:
        self._path = path
        self._settings = settings
        self._meter = Meter(observer or SilentObserver(), slow_statement_ms=settings.slow_statement_ms)
        self._reads = frozenset(name for name, sql in load("sqlite").items() if sql.startswith("SELECT"))
        self._connections: list[aiosqlite.Connection] = []
        self._writer: SqliteTransaction | None = None
        self._reserved: SqliteTransaction | None = None
        self._readers: asyncio.Queue[SqliteTransaction] | None = None
        self._writer_lock = asyncio.Lock()
        self._group = CommitGroup()
        self._closing: set[asyncio.Task[None]] = set()
        self._reserved_lock = asyncio.Lock()

    def array(self, values: Sequence[Any]) -> str:
        return json.dumps(values)

    async def open(self) -> None:
        if self._writer is not None:
            return
        try:
            if self._path != MEMORY:
                await asyncio.to_thread(_prepare_file, Path(self._path))
            self._writer = await self._connect()
            if self._path != MEMORY:
                readers: asyncio.Queue[SqliteTransaction] = asyncio.Queue()
                for _ in range(min(self._settings.pool_size, 2)):
                    readers.put_nowait(await self._connect(read_only=True))
                self._readers = readers
        except BaseException as error:
            await self.close()
            if isinstance(error, Exception):
                raise translate(error) from error
            raise

    async def close(self) -> None:
        async with self._writer_lock:
            if self._writer is not None:
                await self._group.close(self._writer)
            connections, self._connections = self._connections, []
            self._writer = self._reserved = self._readers = None
        for connection in connections:
            await settle(connection.close())

    async def fetch(self, name: str, *args: Any) -> Sequence[Row]:
        async with self._connection(name) as connection:
            return await connection.fetch(name, *args)

    async def fetchrow(self, name: str, *args: Any) -> Row | None:
        async with self._connection(name) as connection:
            return await connection.fetchrow(name, *args)

    async def execute(self, name: str, *args: Any) -> int:
        async with self._connection(name) as connection:
            return await connection.execute(name, *args)

    async def execute_rows(self, name: str, rows: Sequence[Args]) -> int:
        async with self.transaction() as transaction:
            return await transaction.execute_rows(name, rows)

    async def execute_reserved(self, name: str, *args: Any) -> int:
        if self._path == MEMORY:
            return await self.execute(name, *args)
        async with self._reserved_lock:
            if self._reserved is None:
                self._reserved = await self._connect()
            return await self._reserved.execute(name, *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTransaction]:
        """All or nothing, and durable on return; shares its sync with those that wait meanwhile."""
        await self._turn()
        try:
            writer = self._open_writer()
            async with self._group.member(writer) as committed:
                yield writer
        finally:
            self._writer_lock.release()
        await asyncio.shield(committed)

    migration = transaction

    def statements(self) -> Mapping[str, int]:
        return dict(self._meter.counts)

    @asynccontextmanager
    async def _connection(self, name: str) -> AsyncIterator[SqliteTransaction]:
        if self._readers is None or name not in self._reads:
            async with self._writing() as writer:
                yield writer
            return
        readers = self._readers
        reader = await self._waited(readers.get())
        try:
            yield reader
        finally:
            readers.put_nowait(reader)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[SqliteTransaction]:
        """The writer for a single statement, which is durable by itself."""
        await self._turn()
        try:
            writer = self._open_writer()
            await self._group.close(writer)
            yield writer
        finally:
            self._writer_lock.release()

    def _open_writer(self) -> SqliteTransaction:
        if self._writer is None:
            raise StorageUnavailable("the store is not open")
        return self._writer

    async def _turn(self) -> None:
        """Wait for the writer."""
        self._group.waiting += 1
        try:
            await self._waited(self._writer_lock.acquire())
        except BaseException:
            self._group.waiting -= 1
            if not self._group.waiting and self._group.open:
                # The group was left open for us, and nobody else comes to close it.
                task = asyncio.create_task(self._close_group(), name="close-group")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            raise
        self._group.waiting -= 1

    async def _close_group(self) -> None:
        async with self._writer_lock:
            if self._writer is not None:
                await self._group.close(self._writer)

    async def _waited(self, turn: Coroutine[Any, Any, T]) -> T:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.pool_wait_s):
                return await turn
        except TimeoutError as error:
            message = f"no database connection was free within {self._settings.pool_wait_s} s"
            raise StorageUnavailable(message, retry_after_s=RETRY_AFTER_S) from error
        finally:
            self._meter.pool_wait(time.perf_counter() - started)

    async def _connect(self, *, read_only: bool = False) -> SqliteTransaction:
        busy_s = self._settings.command_timeout_s
        connection = await aiosqlite.connect(self._path, timeout=busy_s, isolation_level=None)
        self._connections.append(connection)
        connection.row_factory = sqlite3.Row
        for pragma in _pragmas(busy_s, read_only=read_only):
            await self._configure(connection, pragma)
        return SqliteTransaction(connection, self._meter, timeout_s=busy_s + self._settings.pool_wait_s)

    async def _configure(self, connection: aiosqlite.Connection, pragma: str) -> None:
        """Set a pragma; switching to WAL ignores the busy timeout, so it is tried until the deadline."""
        deadline = time.monotonic() + self._settings.connect_timeout_s
        while True:
            try:
                await connection.execute_fetchall(pragma)
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


def _split(script: str) -> list[str]:
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return [*statements, pending] if pending.strip() else statements


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
