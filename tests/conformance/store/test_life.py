"""Opening, migrating, counting and closing a store; URLs that name none."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import InvalidRequest, StorageUnavailable
from storage.factory import create_store
from storage.settings import StorageSettings
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.support.postgres import PostgresServer


async def test_statements_are_counted_by_name(store: AsyncStorageBackend) -> None:
    before = store.statements().get("ping", 0)
    await store.ping()
    await store.ping()
    assert store.statements()["ping"] == before + 2


async def test_a_closed_store_is_unavailable(store: AsyncStorageBackend) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StorageUnavailable):
        await store.ping()


async def test_migrating_again_applies_nothing(store: AsyncStorageBackend) -> None:
    assert await store.migrate() == ([], [])


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_many_processes_migrate_an_empty_database_at_once(
    kind: str, sqlite_url: str, postgres_server: PostgresServer
) -> None:
    url = sqlite_url if kind == "sqlite" else postgres_server.create_database()
    stores = [create_store(StorageSettings(url=url)) for _ in range(5)]
    try:
        await asyncio.gather(*(store.open() for store in stores))
        applied = await asyncio.gather(*(store.migrate() for store in stores))
        assert sorted(applied)[:-1] == [([], [])] * 4
        assert sorted(applied)[-1].applied[0] == "0001_initial.pre"
        await make.fence(stores[3])
    finally:
        await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.parametrize("url", ["mysql://x:secret@h/d", "wunder.db", "sqlite://wunder.db", "sqlite:///", ""])
def test_a_bad_url_is_named_without_its_secrets(url: str) -> None:
    with pytest.raises(InvalidRequest, match="expected postgresql://") as refused:
        create_store(StorageSettings(url=url))
    assert refused.value.field == "storage.url"
    assert "secret" not in str(refused.value)


async def test_cancelled_work_leaves_no_transaction_behind(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    for turns in range(25):
        work = asyncio.ensure_future(store.open_session(make.SESSION, make.OWNER, seq_block=1, now_us=turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    opened = await store.open_session(make.SESSION, make.OWNER, seq_block=1, now_us=1)
    assert opened.session.epoch > fence.epoch
    assert await store.create_first_admin(make.user(is_admin=True))
