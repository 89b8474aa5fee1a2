"""Group commit: writers that wait share a sync, fail alone, and are told of nothing that is not durable."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

import storage.sqlite
from storage.errors import Conflict, StorageFull, StorageUnavailable
from storage.records import Fence
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.conftest import OpenStore

WRITERS = 12


@pytest.fixture
async def store(sqlite_url: str, open_store: OpenStore) -> AsyncStorageBackend:
    return await open_store(sqlite_url)


async def fences(store: AsyncStorageBackend) -> list[Fence]:
    return [await make.fence(store, f"s{number}") for number in range(WRITERS)]


async def accept(store: AsyncStorageBackend, fence: Fence, text: bytes = b"{}") -> None:
    turn, session_id = f"t-{fence.session_id}", fence.session_id
    task = make.task(turn, session_id=session_id)
    await make.accept(store, fence, task, make.message(0, turn, text, session_id=session_id))


async def test_waiting_writers_share_a_commit(store: AsyncStorageBackend) -> None:
    held = await fences(store)
    before = store.statements()["commit"]
    await asyncio.gather(*(accept(store, fence) for fence in held))
    assert store.statements()["commit"] - before < WRITERS / 2
    assert len(await store.running_tasks()) == WRITERS


async def test_a_member_fails_alone(store: AsyncStorageBackend) -> None:
    held = await fences(store)
    await accept(store, held[5])
    again = make.task("again", "queued", session_id=held[5].session_id)
    clash = make.message(0, "again", b"[]", session_id=held[5].session_id)
    writes = [accept(store, fence) for fence in held]
    writes[5].close()
    writes[5] = make.accept(store, held[5], again, clash)  # another message at a taken position
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(Conflict) == 1
    assert len(await store.running_tasks()) == WRITERS
    assert await store.get_task(again.turn_id) is None


async def test_cancelled_members_take_nobody_with_them(store: AsyncStorageBackend) -> None:
    held = await fences(store)
    for spins in range(30):
        turns = [make.task(f"{spins}-{n}", "queued", session_id=fence.session_id) for n, fence in enumerate(held)]
        writes = [
            asyncio.ensure_future(make.accept(store, fence, turn)) for fence, turn in zip(held, turns, strict=True)
        ]
        for _ in range(spins):
            await asyncio.sleep(0)
        for write in writes[::3]:
            write.cancel()
        outcomes = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 10)
        for turn, outcome in zip(turns, outcomes, strict=True):
            if outcome is None:
                assert await store.get_task(turn.turn_id) is not None
            else:
                assert isinstance(outcome, (asyncio.CancelledError, StorageUnavailable))


async def test_what_is_acknowledged_on_a_full_disk_is_there(
    sqlite_url: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(sqlite_url)
    held = await fences(store)
    await store.close()
    pragmas = storage.sqlite._pragmas
    pages = 80  # room for some of the messages, not for all
    monkeypatch.setattr(
        storage.sqlite, "_pragmas", lambda *a, **k: [*pragmas(*a, **k), f"PRAGMA max_page_count = {pages}"]
    )
    await store.open()
    text = b"1" * 40_000
    outcomes = await asyncio.gather(*(accept(store, fence, text) for fence in held), return_exceptions=True)
    stored = {session_id for _, session_id, _, _ in await store.running_tasks()}
    acknowledged = {fence.session_id for fence, outcome in zip(held, outcomes, strict=True) if outcome is None}
    assert acknowledged <= stored
    assert any(isinstance(outcome, StorageFull) for outcome in outcomes)


async def test_closing_ends_every_wait(store: AsyncStorageBackend, tmp_path: Path, sqlite_url: str) -> None:
    held = await fences(store)
    other = sqlite3.connect(tmp_path / "data" / "wunder.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writes = [asyncio.ensure_future(accept(store, fence)) for fence in held]
    await store.ping()
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(closing, 10)
    outcomes = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 10)
    assert all(outcome is None or isinstance(outcome, StorageUnavailable) for outcome in outcomes)
    await store.open()
    assert len(await store.running_tasks()) == outcomes.count(None)
