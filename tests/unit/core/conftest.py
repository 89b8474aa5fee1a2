from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from storage.factory import create_store
from storage.settings import StorageSettings
from storage.store import AsyncStorageBackend
from tests.support.manual_clock import ManualClock
from tests.support.pool_bench import Make, PoolBench


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store() -> AsyncIterator[AsyncStorageBackend]:
    backend = create_store(StorageSettings(url="sqlite://:memory:"))
    await backend.open()
    try:
        await backend.migrate()
        yield backend
    finally:
        await backend.close()


@pytest.fixture
async def pool_bench(store: AsyncStorageBackend) -> AsyncIterator[Make]:
    made: list[PoolBench] = []

    async def build(**queue: Any) -> PoolBench:
        made.append(PoolBench(store, **queue))
        await made[-1].start()
        return made[-1]

    yield build
    for found in made:
        await found.stop()
