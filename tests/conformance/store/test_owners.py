"""Owners: leases in database time, opening, closing, and numbers that are never used twice."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import OwnedElsewhere, SessionNotFound, StaleEpoch
from storage.records import Fence, OwnerId, SessionId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make

SECOND = OwnerId("o2")
Stores = tuple[AsyncStorageBackend, AsyncStorageBackend]


async def test_each_opening_has_the_next_epoch_and_fresh_numbers(store: AsyncStorageBackend) -> None:
    await store.create_session(make.session())
    owner = await make.owner(store)
    first = await store.open_session(make.SESSION, owner, seq_block=100, now_us=5)
    assert (first.session.epoch, first.first_seq, first.session.reserved_seq, first.last_seq) == (1, 1, 100, 0)
    assert (first.session.owner_id, first.running, first.queued) == (owner, None, ())
    again = await store.open_session(make.SESSION, owner, seq_block=10, now_us=6)
    assert (again.session.epoch, again.first_seq, again.session.reserved_seq) == (2, 101, 110)
    with pytest.raises(SessionNotFound):
        await store.open_session(SessionId("none"), owner, seq_block=1, now_us=5)


async def test_a_live_owner_keeps_its_session_and_a_dead_one_loses_it(store: AsyncStorageBackend) -> None:
    old = await make.fence(store)
    await make.owner(store, SECOND)
    with pytest.raises(OwnedElsewhere) as refused:
        await store.open_session(make.SESSION, SECOND, seq_block=1, now_us=5)
    assert refused.value.detail == {"owner_id": make.OWNER}
    await store.expire_owner(make.OWNER)
    opened = await store.open_session(make.SESSION, SECOND, seq_block=1, now_us=6)
    assert opened.session.epoch == old.epoch + 1
    with pytest.raises(StaleEpoch):
        await make.accept(store, old, make.task())
    assert await store.load_messages(make.SESSION, limit=1) == []


async def test_who_has_no_live_lease_can_open_nothing(store: AsyncStorageBackend) -> None:
    await store.create_session(make.session())
    with pytest.raises(StaleEpoch):
        await store.open_session(make.SESSION, OwnerId("unknown"), seq_block=1, now_us=5)
    await make.owner(store)
    await store.expire_owner(make.OWNER)
    with pytest.raises(StaleEpoch):
        await store.open_session(make.SESSION, make.OWNER, seq_block=1, now_us=5)


async def test_a_lapsed_owner_cannot_renew(store: AsyncStorageBackend) -> None:
    await make.owner(store)
    assert await store.renew_owner(make.OWNER, lease_s=60)
    assert await store.live_owners() == [make.OWNER]
    await store.expire_owner(make.OWNER)
    assert not await store.renew_owner(make.OWNER, lease_s=60)
    assert not await store.renew_owner(OwnerId("unknown"), lease_s=60)
    assert await store.live_owners() == []


async def test_a_lease_lapses_by_itself_in_database_time(store: AsyncStorageBackend) -> None:
    await make.owner(store, lease_s=0.05)
    async with asyncio.timeout(5):
        while await store.live_owners():
            pass
    assert not await store.renew_owner(make.OWNER, lease_s=60)


async def test_lapsed_owners_without_sessions_are_forgotten(store: AsyncStorageBackend) -> None:
    await make.fence(store)
    await make.owner(store, SECOND)
    await store.expire_owner(make.OWNER)
    await store.expire_owner(SECOND)
    assert await store.delete_lapsed_owners(older_than_s=3600) == 0
    assert await store.delete_lapsed_owners(older_than_s=0) == 1
    assert await store.delete_lapsed_owners(older_than_s=0) == 0


async def test_closing_gives_back_unused_numbers_but_no_used_one(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await store.append_events([make.batch(fence, make.event(1), make.event(2), make.event(3))])
    await store.close_session(fence, last_seq=2, now_us=1)
    await store.close_session(fence, last_seq=2, now_us=1)
    opened = await store.open_session(make.SESSION, make.OWNER, seq_block=10, now_us=5)
    assert (opened.first_seq, opened.last_seq, opened.session.epoch) == (4, 3, fence.epoch + 1)
    with pytest.raises(StaleEpoch):
        await store.close_session(fence, last_seq=3, now_us=1)


async def test_after_closing_the_fence_holds_no_more(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await store.close_session(fence, last_seq=0, now_us=1)
    assert await store.append_events([make.batch(fence, make.event(1))]) == [make.SESSION]
    with pytest.raises(StaleEpoch):
        await store.reserve_seq(fence, 2000)
    with pytest.raises(StaleEpoch):
        await make.accept(store, fence, make.task())
    await make.owner(store, SECOND)
    await store.open_session(make.SESSION, SECOND, seq_block=1, now_us=5)


async def test_reserving_never_lowers(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await store.reserve_seq(fence, 3000)
    await store.reserve_seq(fence, 2000)
    stored = await store.get_session(make.SESSION)
    assert stored is not None
    assert stored.reserved_seq == 3000


async def test_owned_and_orphaned_sessions(store: AsyncStorageBackend) -> None:
    for number, session_id in enumerate(["s1", "s2", "s3"]):
        fence = await make.fence(store, session_id, f"o{number}")
        if session_id != "s3":
            created_us = 50 - number
            await make.accept(
                store, fence, make.task(session_id, "queued", session_id=session_id, created_us=created_us)
            )
    assert await store.owned_sessions() == [("s1", "o0"), ("s2", "o1"), ("s3", "o2")]
    assert await store.orphaned_sessions(limit=9, now_us=2**60) == []
    for owner in await store.live_owners():
        await store.expire_owner(owner)
    assert await store.owned_sessions() == []
    assert await store.orphaned_sessions(limit=9, now_us=2**60) == ["s2", "s1"]
    assert await store.orphaned_sessions(limit=1, now_us=2**60) == ["s2"]


async def test_a_new_owner_gets_the_turns_to_care_for(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task("late", "queued", created_us=30))
    await make.accept(store, fence, make.task("early", "queued", created_us=20))
    await make.accept(store, fence, make.task("now", created_us=40))
    await store.append_events([make.batch(fence, make.event(7))])
    opened = await store.open_session(make.SESSION, make.OWNER, seq_block=10, now_us=50)
    assert opened.running is not None
    assert opened.running.turn_id == "now"
    assert [task.turn_id for task in opened.queued] == ["early", "late"]
    assert (opened.last_seq, opened.first_seq) == (7, 1001)


async def test_of_two_owners_exactly_one_opens(two_stores: Stores) -> None:
    await two_stores[0].create_session(make.session())
    owners = [await make.owner(two_stores[n % 2], f"o{n}") for n in range(6)]

    async def opens(number: int) -> int | None:
        try:
            opened = await two_stores[number % 2].open_session(make.SESSION, owners[number], seq_block=10, now_us=5)
        except OwnedElsewhere:
            return None
        return opened.session.epoch

    epochs = await asyncio.gather(*(opens(number) for number in range(6)))
    assert [epoch for epoch in epochs if epoch] == [1]


async def test_an_unknown_epoch_is_stale_for_every_write(store: AsyncStorageBackend) -> None:
    await make.fence(store)
    wrong = Fence(make.SESSION, 99)
    with pytest.raises(StaleEpoch):
        await make.finish(store, wrong)
    with pytest.raises(StaleEpoch):
        await store.start_turn(wrong, make.task().turn_id, messages=[], events=[], now_us=1)
    with pytest.raises(StaleEpoch):
        await store.resume_turn(wrong, make.task().turn_id, now_us=1)
    with pytest.raises(StaleEpoch):
        await store.commit_round(wrong, make.task().turn_id, 1, round=1, messages=[], events=[])
