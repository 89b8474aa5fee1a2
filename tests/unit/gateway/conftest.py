from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storage.factory import create_store
from storage.settings import StorageSettings
from storage.store import UserStorage
from tests.support.edge import Edge, edge_settings, running_edge
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def users() -> MemoryUsers:
    return MemoryUsers()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[UserStorage]:
    """The double and the real thing pass the same tests."""
    if request.param == "memory":
        yield MemoryUsers()
        return
    backend = create_store(StorageSettings(url="sqlite://:memory:"))
    await backend.open()
    try:
        await backend.migrate()
        yield backend
    finally:
        await backend.close()


@pytest.fixture
async def edge(store: UserStorage, clock: ManualClock) -> AsyncIterator[Edge]:
    settings = edge_settings(security={"api_key": "k-0123456789abcdef"})
    async with running_edge(store, settings, clock) as running:
        yield running
