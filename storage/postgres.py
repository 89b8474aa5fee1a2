"""Postgres through asyncpg: a bounded pool, deadlines on both sides, and the one place that reads driver errors.

Deadlines: the server ends a statement after `command_timeout_s`; the client gives up a little later, for a server
that does not answer at all, and then drops the connection instead of waiting for its cancellation. A client that
stops inside a transaction loses it (and its row locks) after IDLE_IN_TRANSACTION_MS, well within a lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeVar

import asyncpg

from storage.database import Args, Meter, MigrationRunner, Row, Runner, SilentObserver, StorageObserver, settle
from storage.errors import Conflict, StorageError, StorageFull, StorageUnavailable, WunderError
from storage.notifications import Notifier
from storage.settings import StorageSettings
from storage.statements import load

T = TypeVar("T")

IDLE_IN_TRANSACTION_MS = 5_000
CLIENT_GRACE_S = 0.2
MIGRATION_TIMEOUT_S = 600.0
RETRY_AFTER_S = 1.0
LISTEN_CHECK_S = 15.0
"""A connection that only listens is asked whether it still lives."""
PLANNING = {
    "jit": "off",
    # Our statements are planned the same whatever their parameters, and planning costs more than most.
    "plan_cache_mode": "force_generic_plan",
    # Rows are found by their keys. Reading a whole table or index looks cheaper while it is empty, and the plan stays.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""How the server plans our statements: once for each connection, whatever the statistics say at that moment."""

_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement timeout
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a failover is under way
    asyncpg.LockNotAvailableError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class PostgresTransaction:
    """Named queries on one connection."""

    def __init__(self, connection: Any, meter: Meter, *, timeout_s: float) -> None:
        self._connection = connection
        self._meter = meter
        self._timeout_s = timeout_s
        self._queries = load("postgres")

    async def fetch(self, name: str, *args: Any) -> Sequence[Row]:
        rows: Sequence[Row] = await self._run(name, "fetch", self._queries[name], *args)
        return rows

    async def fetchrow(self, name: str, *args: Any) -> Row | None:
        row: Row | None = await self._run(name, "fetchrow", self._queries[name], *args)
        return row

    async def execute(self, name: str, *args: Any) -> int:
        return _rows_changed(await self._run(name, "execute", self._queries[name], *args))

    async def execute_rows(self, name: str, rows: Sequence[Args]) -> int:
        return await self.execute(name, *zip(*rows, strict=True)) if rows else 0

    async def execute_script(self, script: str) -> None:
        """Run statements without parameters."""
        await self._run("execute_script", "execute", script)

    async def control(self, verb: Literal["BEGIN", "COMMIT", "ROLLBACK"]) -> None:
        """Open or close the transaction, whatever happens to the caller."""
        await settle(self._run(verb.lower(), "execute", verb))

    async def _run(self, name: str, method: str, sql: str, *args: Any) -> Any:
        try:
            return await self._meter.timed(name, self._call(method, sql, *args))
        except TimeoutError as error:
            with suppress(asyncpg.InterfaceError):
                self._connection.terminate()  # do not wait for a server that does not answer
            raise translate(error) from error
        except Exception as error:
            raise translate(error) from error

    async def _call(self, method: str, sql: str, *args: Any) -> Any:
        # A lost connection raises already when the method is called, not only when it is awaited.
        return await getattr(self._connection, method)(sql, *args, timeout=self._timeout_s)


class PostgresDatabase:
    """A `Database` on a Postgres server."""

    dialect: Literal["postgres"] = "postgres"
    notifies = True

    def __init__(self, settings: StorageSettings, observer: StorageObserver | None = None) -> None:
        self._settings = settings
        self._meter = Meter(observer or SilentObserver(), slow_statement_ms=settings.slow_statement_ms)
        self._pool: Any = None
        self._reserved: Any = None
        self._reserved_lock = asyncio.Lock()
        self._notifier = Notifier(lambda topic: self.fetchrow("notify", topic))

    def array(self, values: Sequence[Any]) -> list[Any]:
        return list(values)

    async def open(self) -> None:
        if self._pool is not None:
            return
        pool = asyncpg.create_pool(
            min_size=1, max_size=self._settings.pool_size, reset=_keep_session, **self._connect_options()
        )
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                self._pool = await pool
        except Exception as error:
            pool.terminate()
            raise translate(error) from error

    async def close(self) -> None:
        await self._notifier.close()
        pool, self._pool = self._pool, None
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            reserved.terminate()
        if pool is not None:
            try:
                async with asyncio.timeout(self._settings.command_timeout_s):
                    await pool.close()
            except Exception:
                pool.terminate()

    async def fetch(self, name: str, *args: Any) -> Sequence[Row]:
        async with self._connection() as connection:
            return await connection.fetch(name, *args)

    async def fetchrow(self, name: str, *args: Any) -> Row | None:
        async with self._connection() as connection:
            return await connection.fetchrow(name, *args)

    async def execute(self, name: str, *args: Any) -> int:
        async with self._connection() as connection:
            return await connection.execute(name, *args)

    async def execute_rows(self, name: str, rows: Sequence[Args]) -> int:
        async with self._connection() as connection:
            return await connection.execute_rows(name, rows)

    async def execute_reserved(self, name: str, *args: Any) -> int:
        async with self._reserved_lock:
            if self._reserved is None or self._reserved.is_closed():
                connecting = asyncpg.connect(**self._connect_options())
                self._reserved = await _translated(connecting)
            return await self._over(self._reserved).execute(name, *args)

    def notify(self, topic: str) -> None:
        self._notifier.notify(topic)

    async def listen(self, topic: str, on_notified: Callable[[], None]) -> None:
        lost = asyncio.Event()
        raw = await _translated(asyncpg.connect(**self._connect_options()))
        try:
            raw.add_termination_listener(lambda _: lost.set())
            await _translated(raw.add_listener(topic, lambda *_: on_notified()))
            on_notified()  # what was notified of before is lost: whoever listens looks for it
            while not await _within(lost, LISTEN_CHECK_S):
                await self._over(raw).execute("ping")
            raise StorageUnavailable("the connection that listens is lost")
        finally:
            raw.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        """All or nothing; rolled back on any exception, also when the task is cancelled."""
        async with self._connection() as connection, _transaction(connection):
            yield connection

    async def transact(self, body: Callable[[Runner], Coroutine[Any, Any, T]]) -> T:
        async with self.transaction() as transaction:
            return await body(transaction)

    async def migrate(self, body: Callable[[MigrationRunner], Coroutine[Any, Any, T]]) -> T:
        async with self._acquired() as raw:
            connection = PostgresTransaction(raw, self._meter, timeout_s=MIGRATION_TIMEOUT_S)
            async with _transaction(connection):
                await connection.execute_script(
                    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
                )
                return await body(connection)

    def statements(self) -> Mapping[str, int]:
        return dict(self._meter.counts)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PostgresTransaction]:
        async with self._acquired() as raw:
            yield self._over(raw)

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Any]:
        if self._pool is None:
            raise StorageUnavailable("the store is not open")
        pool, started = self._pool, time.perf_counter()
        try:
            raw = await _translated(pool.acquire(timeout=self._settings.pool_wait_s))
        finally:
            self._meter.pool_wait(time.perf_counter() - started)
        try:
            yield raw
        finally:
            with suppress(Exception):  # a connection that cannot be given back is dropped by the pool
                await pool.release(raw, timeout=self._settings.pool_wait_s)

    def _over(self, raw: Any) -> PostgresTransaction:
        timeout_s = self._settings.command_timeout_s + CLIENT_GRACE_S
        return PostgresTransaction(raw, self._meter, timeout_s=timeout_s)

    def _connect_options(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "dsn": settings.url,
            "timeout": settings.connect_timeout_s,
            "command_timeout": settings.command_timeout_s + CLIENT_GRACE_S,
            "server_settings": {
                "application_name": "wunder",
                "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
                "statement_timeout": str(max(1, int(settings.command_timeout_s * 1000))),
                **PLANNING,
            },
        }


async def _keep_session(_connection: Any) -> None:
    """Spare the RESET ALL round trip: our statements change no session state."""


@asynccontextmanager
async def _transaction(connection: PostgresTransaction) -> AsyncIterator[None]:
    try:
        await connection.control("BEGIN")
        yield
    except BaseException:
        with suppress(WunderError):  # the connection is gone, and its transaction with it
            await connection.control("ROLLBACK")
        raise
    await connection.control("COMMIT")


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await event.wait()
    return event.is_set()


async def _translated(call: Awaitable[T]) -> T:
    try:
        return await call
    except Exception as error:
        raise translate(error) from error


def _rows_changed(tag: str) -> int:
    count = tag.rpartition(" ")[2]
    return int(count) if count.isdigit() else 0


def translate(error: Exception) -> Exception:
    """Our error for one of the driver's; its text names the kind of failure, never data or credentials."""
    kind = type(error).__name__
    match error:
        case WunderError():
            return error
        case asyncpg.DiskFullError():
            return StorageFull("Postgres has no room to write", retry_after_s=RETRY_AFTER_S)
        case asyncpg.IntegrityConstraintViolationError():
            constraint = getattr(error, "constraint_name", None)
            return Conflict(f"the database refused the write: {kind}", detail={"constraint": constraint})
        case asyncpg.InterfaceError() if not _is_closed(error):
            return StorageError(f"Postgres driver error: {kind}")
        case asyncpg.InterfaceError():
            return StorageUnavailable("the connection to Postgres is closed", retry_after_s=RETRY_AFTER_S)
        case _ if isinstance(error, _UNAVAILABLE):
            return StorageUnavailable(f"Postgres did not answer: {kind}", retry_after_s=RETRY_AFTER_S)
        case _:
            return StorageError(f"Postgres error: {kind} {getattr(error, 'sqlstate', '')}".rstrip())


def _is_closed(error: Exception) -> bool:
    text = str(error)
    return any(word in text for word in ("closed", "closing", "released"))
