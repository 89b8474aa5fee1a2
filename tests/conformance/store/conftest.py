"""Every test that takes `store` runs over SQLite in memory, SQLite in a file, and a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import mkdtemp

import pytest

from storage.factory import create_store
from storage.settings import StorageSettings
from storage.store import AsyncStorageBackend
from tests.support.postgres import PostgresServer

OpenStore = Callable[..., Awaitable[AsyncStorageBackend]]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer(Path(mkdtemp(prefix="wunder-postgres-")))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the schema, which tests copy."""
    url = postgres_server.create_database()

    async def migrate() -> None:
        store = create_store(StorageSettings(url=url))
        await store.open()
        await store.migrate()
        await store.close()

    with ThreadPoolExecutor(1) as thread:  # a loop of its own: a test's may be running here
        thread.submit(asyncio.run, migrate()).result()
    return url.rpartition("/")[2]


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> str:
    return postgres_server.create_database(template=postgres_template)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/wunder.db"


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Opens stores that end with the test."""
    async with AsyncExitStack() as stack:

        async def opened(url: str, **settings: float) -> AsyncStorageBackend:
            store = create_store(StorageSettings(url=url, **settings))
            stack.push_async_callback(store.close)
            await store.open()
            await store.migrate()
            return store

        yield opened


@pytest.fixture(params=["sqlite-memory", "sqlite-file", "postgres"])
async def store(request: pytest.FixtureRequest, open_store: OpenStore) -> AsyncStorageBackend:
    fixtures = {"sqlite-file": "sqlite_url", "postgres": "postgres_url"}
    fixture = fixtures.get(request.param)
    return await open_store(request.getfixturevalue(fixture) if fixture else "sqlite:///:memory:")


@pytest.fixture(params=["sqlite-file", "postgres"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """A database that several stores can open."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite-file" else "postgres_url")
    return url


@pytest.fixture
async def two_stores(shared_url: str, open_store: OpenStore) -> tuple[AsyncStorageBackend, AsyncStorageBackend]:
    """The stores of two processes over one database."""
    return await open_store(shared_url), await open_store(shared_url)
