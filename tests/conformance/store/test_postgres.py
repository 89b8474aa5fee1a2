"""What only Postgres shows: writes that really wait for each other, deadlines, restarts, plans."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import asyncpg
import pytest

import storage.postgres
from storage.errors import StaleEpoch, StorageUnavailable
from storage.factory import create_database
from storage.records import EventBatch, Fence, OwnerId, TurnId
from storage.settings import StorageSettings
from storage.statements import load
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.conftest import OpenStore
from tests.support.postgres import PostgresServer

T1 = TurnId("t1")
LOCK_SESSION = "UPDATE sessions SET title = 'held' WHERE session_id = 's1'"
TAKE_SESSION = "UPDATE sessions SET epoch = epoch + 1 WHERE session_id = 's1'"
LOCK_TASK = "UPDATE tasks SET crashes = crashes WHERE turn_id = 't1'"
CANCEL_TASK = "UPDATE tasks SET cancel_requested = TRUE WHERE turn_id = 't1'"


@pytest.fixture
async def store(postgres_url: str, open_store: OpenStore) -> AsyncStorageBackend:
    return await open_store(postgres_url)


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[Any]:
    """A plain connection to the same database."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def held(connection: Any, sql: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Run a statement and keep its transaction open; gives a wait for others to be blocked by it."""

    async def until_blocked(count: int) -> None:
        async with asyncio.timeout(5):
            while await connection.fetchval(BLOCKED) < count:
                pass

    async with connection.transaction():
        await connection.execute(sql)
        yield until_blocked


BLOCKED = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pg_stat_clear_snapshot() IS NOT NULL"""


async def writes(store: AsyncStorageBackend, fence: Fence) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every fenced write, ready to send; their state is what `prepared` made."""
    said, told = [make.message(1)], [make.event(1)]
    return {
        "accept": lambda: store.accept_turn(fence, make.task("t2", "queued"), messages=said, events=told),
        "commit": lambda: store.commit_round(fence, T1, 1, round=1, messages=said, events=told),
        "finish": lambda: make.finish(store, fence, messages=said, events=told),
        "start": lambda: store.start_turn(fence, TurnId("q"), messages=said, events=told, now_us=3),
        "append": lambda: store.append_events([EventBatch(fence, (make.event(1),))]),
    }


async def prepared(store: AsyncStorageBackend, *, running: bool = True) -> Fence:
    fence = await make.fence(store)
    if running:
        await make.accept(store, fence, make.task(), make.message(0))
    else:
        await make.accept(store, fence, make.task("q", "queued"), make.message(0))
    return fence


@pytest.mark.parametrize("write", ["accept", "commit", "finish", "start", "append"])
async def test_a_write_that_waited_for_a_takeover_is_stale(store: AsyncStorageBackend, other: Any, write: str) -> None:
    fence = await prepared(store, running=write != "start")
    send = (await writes(store, fence))[write]
    async with held(other, TAKE_SESSION) as until_blocked:
        task = asyncio.ensure_future(send())
        await until_blocked(1)
    if write == "append":
        assert await task == [make.SESSION]
    else:
        with pytest.raises(StaleEpoch):
            await task
    assert len(await store.load_messages(make.SESSION, limit=9)) == 1
    assert await store.last_event_seq(make.SESSION) == 0


@pytest.mark.parametrize("write", ["accept", "commit", "finish", "start", "append"])
async def test_a_write_that_waited_for_a_harmless_change_is_made(
    store: AsyncStorageBackend, other: Any, write: str
) -> None:
    fence = await prepared(store, running=write != "start")
    send = (await writes(store, fence))[write]
    async with held(other, LOCK_SESSION) as until_blocked:
        task = asyncio.ensure_future(send())
        await until_blocked(1)
    await task
    assert await store.last_event_seq(make.SESSION) == 1
    session = await store.get_session(make.SESSION)
    assert session is not None
    assert (session.title, session.message_count) == ("held", 1 if write == "append" else 2)


@pytest.mark.parametrize("write", ["accept", "commit", "finish", "append"])
async def test_a_repetition_that_overtakes_its_first_send_is_harmless(
    store: AsyncStorageBackend, other: Any, write: str
) -> None:
    fence = await prepared(store)
    send = (await writes(store, fence))[write]
    async with held(other, LOCK_SESSION) as until_blocked:
        tasks = [asyncio.ensure_future(send()) for _ in range(2)]
        await until_blocked(2)
    first, second = await asyncio.gather(*tasks)
    assert first == second
    session = await store.get_session(make.SESSION)
    assert session is not None
    assert session.message_count == (1 if write == "append" else 2)


async def test_a_takeover_waits_for_the_write_before_it(store: AsyncStorageBackend, other: Any) -> None:
    fence = await prepared(store)
    await make.owner(store, "o2")
    await store.expire_owner(make.OWNER)
    async with held(other, LOCK_TASK) as until_blocked:
        finish = asyncio.ensure_future(make.finish(store, fence))  # has the session, waits for the task
        await until_blocked(1)
        takeover = asyncio.ensure_future(store.open_session(make.SESSION, OwnerId("o2"), seq_block=10, now_us=5))
        await until_blocked(2)
        assert not finish.done()
    assert await finish
    assert (await takeover).running is None
    with pytest.raises(StaleEpoch):
        await store.reserve_seq(fence, 5000)


@pytest.mark.parametrize(("change", "finished"), [(LOCK_TASK, True), (CANCEL_TASK, False)])
async def test_a_completion_sees_the_cancel_that_it_waited_for(
    store: AsyncStorageBackend, other: Any, change: str, finished: bool
) -> None:
    fence = await prepared(store)
    async with held(other, change) as until_blocked:
        finish = asyncio.ensure_future(make.finish(store, fence, messages=[make.message(1)]))
        await until_blocked(1)
    assert await finish is finished
    assert len(await store.load_messages(make.SESSION, limit=9)) == (2 if finished else 1)


async def test_a_full_pool_answers_in_time_and_leases_go_on(
    postgres_url: str, open_store: OpenStore, other: Any
) -> None:
    store = await open_store(postgres_url, pool_size=2, pool_wait_s=0.2)
    fence = await prepared(store)
    async with held(other, LOCK_SESSION) as until_blocked:
        writing = [asyncio.ensure_future(store.reserve_seq(fence, 2000 + n)) for n in range(2)]
        await until_blocked(2)
        started = time.monotonic()
        with pytest.raises(StorageUnavailable) as refused:
            await store.ping()
        assert 0.15 < time.monotonic() - started < 1.0
        assert refused.value.retry_after_s
        assert await store.renew_owner(make.OWNER, lease_s=60)
    await asyncio.gather(*writing)
    await store.ping()


async def test_a_blocked_statement_ends_at_its_deadline(postgres_url: str, open_store: OpenStore, other: Any) -> None:
    store = await open_store(postgres_url, command_timeout_s=0.3)
    fence = await prepared(store)
    async with held(other, LOCK_SESSION):
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            await make.finish(store, fence)
        assert 0.25 < time.monotonic() - started < 1.0
    assert await make.finish(store, fence)


async def test_a_server_that_never_answers_costs_a_deadline(
    postgres_url: str, open_store: OpenStore, postgres_server: PostgresServer
) -> None:
    store = await open_store(postgres_url, command_timeout_s=0.3, pool_wait_s=0.3, connect_timeout_s=0.3, pool_size=2)
    await make.owner(store)
    postgres_server.pause()
    try:
        for _ in range(4):
            started = time.monotonic()
            with pytest.raises(StorageUnavailable):
                await store.ping()
            assert time.monotonic() - started < 1.0
        with pytest.raises(StorageUnavailable):
            await store.renew_owner(make.OWNER, lease_s=60)
    finally:
        postgres_server.resume()
    await ping_until_it_answers(store)
    assert await store.renew_owner(make.OWNER, lease_s=60)


@pytest.fixture
def server_to_crash() -> Iterator[PostgresServer]:
    """A small one: recovery looks at every file of every database."""
    server = PostgresServer(Path(mkdtemp(prefix="wunder-postgres-")))
    server.start()
    yield server
    server.remove()


async def test_the_store_outlives_its_connections_and_its_server(
    server_to_crash: PostgresServer, open_store: OpenStore
) -> None:
    store = await open_store(server_to_crash.url())
    fence = await prepared(store)
    await asyncio.to_thread(server_to_crash.terminate_backends, "postgres")
    await ping_until_it_answers(store)
    await asyncio.to_thread(server_to_crash.restart, "immediate")
    await ping_until_it_answers(store)
    assert await store.renew_owner(make.OWNER, lease_s=60)
    assert await make.finish(store, fence)


async def ping_until_it_answers(store: AsyncStorageBackend) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.ping()
            except StorageUnavailable:
                await asyncio.sleep(0)


async def test_a_client_that_stops_inside_a_transaction_loses_it(
    postgres_url: str, store: AsyncStorageBackend, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.postgres, "IDLE_IN_TRANSACTION_MS", 50)
    fence = await prepared(store)
    database = create_database(StorageSettings(url=postgres_url))
    await database.open()

    async def stop_inside() -> None:
        async with database.transaction() as stopped:
            await stopped.fetchrow("fence_session", fence.session_id, fence.epoch)
            await other.execute(LOCK_SESSION, timeout=5)  # waits until the server ends the transaction
            await stopped.execute("touch_session", fence.session_id, 999, 5)

    with pytest.raises(StorageUnavailable):
        await stop_inside()
    await database.fetchrow("ping")
    await database.close()


async def test_nobody_listens_there(postgres_server: PostgresServer) -> None:
    database = create_database(StorageSettings(url="postgresql://x@127.0.0.1:1/x", connect_timeout_s=1))
    with pytest.raises(StorageUnavailable):
        await database.open()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("read_events", "events_pkey"),
        ("load_messages", "messages_pkey"),
        ("list_user_sessions", "sessions_of_user"),
        ("active_tasks", "tasks_active"),
        ("running_tasks", "tasks_one_running"),
        ("find_idempotent", "tasks_idempotent"),
        ("delete_events", "events_by_kind"),
        ("forget_idempotency_keys", "tasks_keys_by_age"),
        ("due_schedules", "schedules_due"),
        ("next_schedule_due", "schedules_due"),
        ("list_user_schedules", "schedules_by_user"),
        ("list_schedules", "schedules_by_age"),
        ("list_runs", "schedule_runs_pkey"),
        ("delete_old_runs", "schedule_runs_by_age"),
    ],
)
async def test_the_plan_uses_the_index(store: AsyncStorageBackend, other: Any, query: str, index: str) -> None:
    await store.ping()
    sql = load("postgres")[query]
    nulls = ", ".join(["NULL"] * max(map(int, re.findall(r"\$(\d+)", sql)), default=0))
    await other.execute(f"SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; PREPARE q AS {sql}")
    plan = await other.fetch(f"EXPLAIN EXECUTE q ({nulls})" if nulls else "EXPLAIN EXECUTE q")
    assert index in "\n".join(line[0] for line in plan)
