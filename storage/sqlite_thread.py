"""A SQLite connection with a thread of its own, and transactions that share one BEGIN and one sync.

    loop:    transact(A)  transact(B)  transact(C) ...        gathered while the thread is busy
    thread:  BEGIN IMMEDIATE | A in a savepoint | B in a savepoint | C in a savepoint | COMMIT ──► A, B, C return

A crossing between loop and thread costs more than most statements, so a whole group is one crossing. A member that
fails is undone alone, back to its savepoint; when SQLite throws the whole transaction away (no room, an I/O error)
every member gets that error: nobody is told of a write that is not durable.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from storage.database import Args, Row
from storage.statements import load

T = TypeVar("T")
Body = Callable[["ThreadRunner"], Coroutine[Any, Any, Any]]
Outcome = tuple[Any, Exception | None]
_BUSY_PAUSE_S = (0.0005, 0.003)


class ThreadRunner:
    """Named queries on one connection; its coroutines never wait, so a body that uses them runs in one go."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._queries = load("sqlite")
        self.timings: list[tuple[str, float, bool]] = []

    async def fetch(self, name: str, *args: Any) -> Sequence[Row]:
        return self.run(name, lambda c: c.execute(self._queries[name], args).fetchall())

    async def fetchrow(self, name: str, *args: Any) -> Row | None:
        rows = await self.fetch(name, *args)
        return rows[0] if rows else None

    async def execute(self, name: str, *args: Any) -> int:
        return self.run(name, lambda c: max(0, c.execute(self._queries[name], args).rowcount))

    async def execute_rows(self, name: str, rows: Sequence[Args]) -> int:
        return self.run(name, lambda c: max(0, c.executemany(self._queries[name], rows).rowcount)) if rows else 0

    async def execute_script(self, script: str) -> None:
        for statement in split(script):
            self.statement("execute_script", statement)

    def statement(self, name: str, sql: str) -> None:
        """Run a statement of ours that is no named query."""
        self.run(name, lambda c: c.execute(sql))

    def run(self, name: str, call: Callable[[sqlite3.Connection], T]) -> T:
        """Make a call on the connection and write down how long it took."""
        started, failed = time.perf_counter(), True
        try:
            result = call(self._connection)
            failed = False
            return result
        finally:
            self.timings.append((name, time.perf_counter() - started, failed))

    def group(self, bodies: Sequence[Body]) -> list[Outcome]:
        """Run bodies in one transaction; what each returned or raised, once all of it is durable."""
        try:
            self.run("begin", self._begin)
            outcomes = [self._member(body) for body in bodies]
            self.statement("commit", "COMMIT")
        except Exception as error:
            if self._connection.in_transaction:
                self.statement("rollback", "ROLLBACK")
            return [(None, error)] * len(bodies)
        return outcomes

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Take SQLite's only write lock; its own waiting sleeps ever longer, up to 100 ms, while others come and go."""
        (busy_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
        deadline_s = time.monotonic() + busy_ms / 1000
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while not _began(connection, deadline_s):
                time.sleep(random.uniform(*_BUSY_PAUSE_S))  # noqa: S311 - jitter is no secret
        finally:
            connection.execute(f"PRAGMA busy_timeout = {busy_ms}")

    def _member(self, body: Body) -> Outcome:
        self._connection.execute("SAVEPOINT member")
        try:
            result = drive(body(self))
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite has thrown the whole transaction away, and with it what the others had written
            self._connection.execute("ROLLBACK TO member")
            self._connection.execute("RELEASE member")
            return None, error
        self._connection.execute("RELEASE member")
        return result, None


class ConnectionThread:
    """One connection, used by one thread only."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def open(self, path: str, *, timeout_s: float) -> None:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            return connection

        self._connection = await asyncio.get_running_loop().run_in_executor(self._executor, connect)

    async def run(self, call: Callable[[ThreadRunner], T]) -> tuple[T, ThreadRunner]:
        """Make a call in the thread; it runs to its end even if the caller is cancelled."""
        connection = self._connection
        if connection is None:
            raise sqlite3.ProgrammingError("the connection is closed")
        runner = ThreadRunner(connection)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, runner), runner

    def interrupt(self) -> None:
        """Make what the thread runs now fail."""
        if self._connection is not None:
            self._connection.interrupt()

    async def close(self) -> None:
        """End after what was asked for before."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, connection.close)
        self._executor.shutdown(wait=False)


def _began(connection: sqlite3.Connection, deadline_s: float) -> bool:
    """Whether the write lock is ours; another process that has it is waited for until the deadline."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline_s:
            raise
        return False
    return True


def drive(body: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        body.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    body.close()
    raise RuntimeError("a transaction's body awaited something other than its runner")


def split(script: str) -> list[str]:
    """The statements of a script."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return [*statements, pending] if pending.strip() else statements
