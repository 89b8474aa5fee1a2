"""What only SQLite shows: files that only we can read, one writer among processes, a full disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import storage.sqlite
from storage.errors import InvalidRequest, StorageFull, StorageUnavailable
from storage.factory import create_store
from storage.settings import StorageSettings
from tests.conformance.store import make
from tests.conformance.store.conftest import OpenStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "wunder.db"


@pytest.fixture
def common_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("common_umask")
async def test_files_are_ours_alone(path: Path, sqlite_url: str, open_store: OpenStore) -> None:
    await open_store(sqlite_url)
    assert sorted(file.name for file in path.parent.iterdir()) == ["wunder.db", "wunder.db-shm", "wunder.db-wal"]
    assert {mode(file) for file in path.parent.iterdir()} == {0o600}
    assert mode(path.parent) == 0o700


@pytest.fixture
def readable(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    path.chmod(0o644)


@pytest.mark.usefixtures("readable")
async def test_a_readable_database_is_refused(sqlite_url: str) -> None:
    store = create_store(StorageSettings(url=sqlite_url))
    with pytest.raises(InvalidRequest, match="0644") as refused:
        await store.open()
    assert refused.value.field == "storage.url"


async def test_the_file_keeps_a_write_ahead_log(path: Path, sqlite_url: str, open_store: OpenStore) -> None:
    await open_store(sqlite_url)
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
    assert "PRAGMA synchronous = FULL" in storage.sqlite._pragmas(1, read_only=False)


async def test_a_busy_writer_is_waited_for_within_the_deadline(
    path: Path, sqlite_url: str, open_store: OpenStore
) -> None:
    store = await open_store(sqlite_url, command_timeout_s=0.2)
    fence = await make.fence(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        await make.accept(store, fence, make.task())
    assert 0.15 < time.monotonic() - started < 1.0
    assert await store.get_session(make.SESSION) is not None
    other.execute("ROLLBACK")
    other.close()
    await make.accept(store, fence, make.task())


async def test_a_write_goes_on_when_the_other_process_is_done(
    path: Path, sqlite_url: str, open_store: OpenStore
) -> None:
    store = await open_store(sqlite_url)
    fence = await make.fence(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(make.accept(store, fence, make.task()))
    await store.ping()
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    await writing


async def test_waiting_for_the_writer_is_bounded(path: Path, sqlite_url: str, open_store: OpenStore) -> None:
    store = await open_store(sqlite_url, pool_wait_s=0.1, command_timeout_s=1)
    fence = await make.fence(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    first = asyncio.ensure_future(make.accept(store, fence, make.task()))
    await store.ping()
    with pytest.raises(StorageUnavailable, match="within"):
        await store.reserve_seq(fence, 5000)
    other.execute("ROLLBACK")
    other.close()
    await first


async def test_a_full_disk_refuses_writes_and_goes_on_reading(
    sqlite_url: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(sqlite_url)
    fence = await make.fence(store)
    await store.append_events([make.batch(fence, make.event(1))])
    await store.close()
    pragmas = storage.sqlite._pragmas
    with monkeypatch.context() as small:
        small.setattr(storage.sqlite, "_pragmas", lambda *a, **k: [*pragmas(*a, **k), "PRAGMA max_page_count = 1"])
        await store.open()
        with pytest.raises(StorageFull):
            await store.append_events([make.batch(fence, make.event(2, data=b"1" * 100_000))])
        assert await store.last_event_seq(make.SESSION) == 1
        await store.close()
    await store.open()
    assert await store.append_events([make.batch(fence, make.event(2, data=b"1" * 100_000))]) == []
    assert await store.last_event_seq(make.SESSION) == 2
