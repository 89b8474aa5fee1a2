"""A running Wunder, two users, and a look into its database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
import pytest_asyncio

from tests.integration.bad_input.world import World, running_world
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def storage_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same requests are wrong whatever the database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('store')}/wunder.db"
        return
    server = PostgresServer(Path(mkdtemp(prefix="wunder-postgres-")))
    server.start()
    try:
        yield server.create_database()
    finally:
        server.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(storage_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("data"), storage_url) as running:
        yield running
