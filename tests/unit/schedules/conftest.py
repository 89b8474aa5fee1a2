from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storage.factory import create_store
from storage.settings import StorageSettings
from storage.store import AsyncStorageBackend


@pytest.fixture
async def store() -> AsyncIterator[AsyncStorageBackend]:
    backend = create_store(StorageSettings(url="sqlite://:memory:"))
    await backend.open()
    try:
        await backend.migrate()
        yield backend
    finally:
        await backend.close()
