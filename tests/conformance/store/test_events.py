"""The event log: fenced, idempotent, read from a cursor within bounds."""

from __future__ import annotations

from storage.records import EventRecord, Fence
from storage.store import AsyncStorageBackend
from tests.conformance.store import make


async def read(store: AsyncStorageBackend, after: int = 0, limit: int = 99, max_bytes: int = 10**6) -> list[int]:
    found = await store.read_events(make.SESSION, after=after, limit=limit, max_bytes=max_bytes)
    return [event.seq for event in found]


async def test_what_is_appended_is_read_back(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    events = [
        make.event(1, "turn_started", data='{"text":"é \\u0000"}'.encode()),
        make.event(9, first_seq=2, parts=b'[["text",3]]'),
    ]
    assert await store.append_events([make.batch(fence, *events)]) == []
    assert await store.read_events(make.SESSION, after=0, limit=9, max_bytes=999) == events
    assert await store.read_events(make.SESSION, after=5, limit=9, max_bytes=999) == events[1:]
    assert await store.last_event_seq(make.SESSION) == 9


async def test_appending_again_changes_nothing(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await store.append_events([make.batch(fence, make.event(1))])
    assert await store.append_events([make.batch(fence, make.event(1, data=b"{}"), make.event(2))]) == []
    found = await store.read_events(make.SESSION, after=0, limit=9, max_bytes=999)
    assert [(event.seq, event.data) for event in found] == [(1, b'{"text":"x"}'), (2, b'{"text":"x"}')]


async def test_only_sessions_with_a_stale_fence_are_left_out(store: AsyncStorageBackend) -> None:
    fences = [await make.fence(store, f"s{number}") for number in range(3)]
    stale = Fence(fences[1].session_id, fences[1].epoch - 1)
    batches = [make.batch(fence, make.event(1, session_id=fence.session_id)) for fence in (fences[0], stale, fences[2])]
    assert await store.append_events(batches) == ["s1"]
    written = [await store.last_event_seq(fence.session_id) for fence in fences]
    assert written == [1, 0, 1]
    assert await store.append_events([]) == []
    assert await store.append_events([make.batch(fences[0])]) == []


async def test_reading_is_bounded_by_rows_and_bytes(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    events: list[EventRecord] = [make.event(n, data="é".encode() * 50) for n in range(1, 8)]
    await store.append_events([make.batch(fence, *events)])
    assert await read(store, limit=3) == [1, 2, 3]
    assert await read(store, max_bytes=250) == [1, 2, 3]
    assert await read(store, max_bytes=200) == [1, 2]
    assert await read(store, max_bytes=1) == [1]
    assert await read(store, after=6) == [7]
    assert await read(store, after=7) == []


async def test_retention_removes_old_events_of_some_kinds_bounded(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    kinds = ["delta", "status", "final", "delta", "delta", "delta"]
    events = [make.event(n, kind) for n, kind in enumerate(kinds, start=1)]
    await store.append_events([make.batch(fence, *events)])
    assert await store.delete_events(kinds=["delta", "status"], before_us=6, limit=2) == 2
    assert await store.delete_events(kinds=["delta", "status"], before_us=6, limit=9) == 2
    assert await store.delete_events(kinds=["delta", "status"], before_us=6, limit=9) == 0
    assert await store.delete_events(kinds=[], before_us=6, limit=9) == 0
    assert await read(store) == [3, 6]
