"""Notifications between processes: where the database has them they arrive and outlive the connection; else nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from storage.errors import StorageUnavailable
from storage.notifications import READY_TASKS, Notifier
from storage.records import NewTask, SessionId, TurnId, UserId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.conftest import OpenStore
from tests.conformance.store.test_task_queue import claim, finished, pool
from tests.support.facts import eventually, within
from tests.support.pool_bench import PoolBench
from tests.support.postgres import PostgresServer

BURST = 1000


def new(turn: str, session: str | None = None, *, create: bool = True, **fields: Any) -> NewTask:
    session_id = SessionId(session or f"s-{turn}")
    task = make.task(turn, "queued", session_id=session_id, user_id=UserId("u1"), origin="task", attempt=0, **fields)
    return NewTask(task=task, session=make.session(session_id) if create else None, event=b"{}")


@asynccontextmanager
async def listening(store: AsyncStorageBackend, *, again: bool = False) -> AsyncIterator[Callable[[], int]]:
    """How often the listener was called since it began; with `again` it comes back when its connection is lost."""
    heard = 0

    def on_notified() -> None:
        nonlocal heard
        heard += 1

    async def listen() -> None:
        while True:
            try:
                await store.listen(READY_TASKS, on_notified)
            except StorageUnavailable:
                if not again:
                    raise

    task = asyncio.create_task(listen())
    try:
        await eventually(lambda: heard, "it listens")
        yield lambda: heard - 1
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, StorageUnavailable):
            await task


async def test_it_is_said_whether_there_are_notifications(
    store: AsyncStorageBackend, request: pytest.FixtureRequest
) -> None:
    assert store.notifies is (request.node.callspec.params["store"] == "postgres")
    heard: list[None] = []
    store.notify(READY_TASKS)
    if store.notifies:
        async with listening(store) as count:
            store.notify(READY_TASKS)
            await eventually(count, "it is notified")
    else:
        await within(store.listen(READY_TASKS, lambda: heard.append(None)), "there is nothing to listen to")
        assert not heard


@pytest.fixture
async def pair(postgres_url: str, open_store: OpenStore) -> tuple[AsyncStorageBackend, AsyncStorageBackend]:
    """Two processes on one Postgres."""
    return await open_store(postgres_url), await open_store(postgres_url)


Pair = tuple[AsyncStorageBackend, AsyncStorageBackend]


async def test_an_enqueued_task_is_heard_of_elsewhere(pair: Pair) -> None:
    one, two = pair
    async with listening(two) as count:
        await one.enqueue_tasks([new("t1")], now_us=20)
        await eventually(count, "the other one is woken")


async def test_a_task_for_the_owner_of_its_session_is_no_news_for_pools(pair: Pair) -> None:
    one, two = pair
    await make.fence(one, "s")
    async with listening(two) as count:
        await one.enqueue_tasks([new("t1", session="s", create=False)], now_us=20)
        two.notify(READY_TASKS)
        await eventually(count, "the listener hears")
        assert one.statements().get("notify", 0) == 0


Act = Callable[[], Awaitable[Any]]


async def left(store: AsyncStorageBackend) -> Act:
    fence = await make.fence(store, "s")
    await store.enqueue_tasks([new("t1", session="s", create=False)], now_us=20)
    return lambda: store.close_session(fence, last_seq=2, now_us=30)


async def promoted(store: AsyncStorageBackend) -> Act:
    await store.enqueue_tasks([new("t1", run_at_us=500)], now_us=20)
    return lambda: store.promote_due(limit=9, now_us=600)


async def put_back(store: AsyncStorageBackend) -> Act:
    fence = await make.fence(store, "s")
    await make.accept(store, fence, make.task("t1", session_id=SessionId("s")))
    await make.finish(store, fence, status="failed")
    await store.disown_session(fence)
    return lambda: store.requeue_task(TurnId("t1"), now_us=40)


async def followed(store: AsyncStorageBackend) -> Act:
    await store.enqueue_tasks([new("t1", session="s")], now_us=20)
    await store.enqueue_tasks([new("t2", session="s", create=False, created_us=11)], now_us=21)
    await pool(store)
    (claimed,) = await claim(store)
    return lambda: store.finish_and_leave([finished(claimed)])


@pytest.mark.parametrize("prepare", [left, promoted, put_back, followed])
async def test_whatever_makes_a_task_one_for_the_pools_is_heard_of(
    postgres_url: str, open_store: OpenStore, prepare: Any
) -> None:
    one, two = await open_store(postgres_url), await open_store(postgres_url)
    act = await prepare(one)
    notifier = one._db._notifier  # type: ignore[attr-defined]
    await eventually(lambda: notifier._task is None, "what was prepared has been told")
    async with listening(two) as count:
        await two.ping()
        before = count()
        await act()
        await eventually(lambda: count() > before, "the other one is woken")


async def test_a_lost_connection_is_told_and_listened_on_again(
    pair: Pair, postgres_server: PostgresServer, postgres_url: str
) -> None:
    one, two = pair
    async with listening(two, again=True) as count:
        before = count()
        await asyncio.to_thread(postgres_server.terminate_backends, postgres_url.rpartition("/")[2])
        await eventually(lambda: count() > before, "it listens again, and looks once")
        before = count()

        async def enqueued() -> bool:
            with suppress(StorageUnavailable):  # its pool's connections are gone, too
                await one.enqueue_tasks([new("t1")], now_us=20)
                return True
            return False

        await eventually(enqueued, "the other process is connected again")
        await eventually(lambda: count() > before, "it is woken")


async def test_a_burst_is_few_notifications(pair: Pair) -> None:
    one, two = pair
    async with listening(two) as count:
        started = asyncio.get_running_loop().time()
        for first in range(0, BURST, 20):
            turns = [one.enqueue_tasks([new(f"t{n}")], now_us=20) for n in range(first, first + 20)]
            await asyncio.gather(*turns)
        await eventually(count, "it is woken")
        one.notify(READY_TASKS)
        await eventually(lambda: one.statements()["notify"] == count(), "all of them arrived")
        lasted_s = asyncio.get_running_loop().time() - started
        assert count() <= 2 + lasted_s / 0.05


async def test_while_one_is_sent_the_others_are_one_more() -> None:
    sent: list[str] = []
    gate = asyncio.Event()

    async def send(topic: str) -> None:
        sent.append(topic)
        await gate.wait()

    notifier = Notifier(send, pause_s=0.0)
    notifier.notify("a")
    await eventually(lambda: sent == ["a"], "the first is under way")
    for _ in range(BURST):
        notifier.notify("a")
    assert sent == ["a"]
    gate.set()
    await eventually(lambda: sent == ["a", "a"] and notifier._task is None, "the others were one")


async def test_one_that_cannot_be_sent_stops_nobody() -> None:
    tries: list[str] = []

    async def send(topic: str) -> None:
        tries.append(topic)
        if len(tries) == 1:
            raise StorageUnavailable("away")

    notifier = Notifier(send, pause_s=0.0)
    notifier.notify("a")
    await eventually(lambda: notifier._task is None, "it was tried")
    notifier.notify("a")
    await eventually(lambda: len(tries) == 2, "the next one is sent")


async def test_a_pool_gets_a_task_of_another_cluster_at_once(
    pair: Pair, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """It looks by itself once in ten minutes; nobody of its own cluster tells it anything."""
    one, two = pair
    bench = PoolBench(two)
    await bench.start()
    bench.model.let()
    try:
        await one.enqueue_tasks([bench.new("t1")], now_us=bench.clock.now_us())
        await bench.ended("t1")
        listens = bench.store.calls["listen"]
        await asyncio.to_thread(postgres_server.terminate_backends, postgres_url.rpartition("/")[2])
        await eventually(lambda: bench.store.calls["listen"] > listens, "it listens again")

        async def enqueued() -> bool:
            with suppress(StorageUnavailable):
                return bool(await one.enqueue_tasks([bench.new("t2")], now_us=bench.clock.now_us()))
            return False

        await eventually(enqueued, "the other cluster is connected again")
        await bench.ended("t2")
    finally:
        await bench.stop()
