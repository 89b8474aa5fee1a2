"""Conversations and their transcripts."""

from __future__ import annotations

import pytest

from storage.errors import SessionNotFound, StaleEpoch
from storage.records import SessionId, UserId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make


async def test_creating_again_gives_the_session_to_its_user_only(store: AsyncStorageBackend) -> None:
    made = await store.create_session(make.session(title="first", agent_id="a"))
    assert made == make.session(title="first", agent_id="a")
    assert await store.create_session(make.session(title="second")) == made
    with pytest.raises(SessionNotFound):
        await store.create_session(make.session(user_id="u2"))
    assert await store.get_session(SessionId("none")) is None


async def test_listing_is_newest_first_by_user_and_agent(store: AsyncStorageBackend) -> None:
    for number in range(5):
        agent = "a" if number % 2 else None
        await store.create_session(make.session(f"s{number}", created_us=number, agent_id=agent))
    await store.create_session(make.session("other", user_id="u2", created_us=9))
    page = await store.list_sessions(make.USER, agent_id=None, offset=1, limit=2)
    assert (page.total, [s.session_id for s in page.items]) == (5, ["s3", "s2"])
    page = await store.list_sessions(make.USER, agent_id="a", offset=0, limit=9)
    assert (page.total, [s.session_id for s in page.items]) == (2, ["s3", "s1"])
    page = await store.list_sessions(None, agent_id=None, offset=0, limit=1)
    assert (page.total, [s.session_id for s in page.items]) == (6, ["other"])
    page = await store.list_sessions(None, agent_id="a", offset=9, limit=1)
    assert (page.total, page.items) == (2, ())
    page = await store.list_sessions(UserId("nobody"), agent_id=None, offset=0, limit=1)
    assert (page.total, page.items) == (0, ())


async def test_update_changes_what_is_given(store: AsyncStorageBackend) -> None:
    await store.create_session(make.session(title="old"))
    changed = await store.update_session(make.SESSION, archived=True, now_us=7)
    assert changed is not None
    assert (changed.title, changed.archived, changed.updated_us) == ("old", True, 7)
    changed = await store.update_session(make.SESSION, title="n\x00w \ud800", now_us=6)
    assert changed is not None
    assert (changed.title, changed.archived, changed.updated_us) == ("n\ufffdw \ufffd", True, 7)
    assert await store.update_session(SessionId("none"), title="x", now_us=1) is None


async def test_deleting_removes_everything_and_ends_the_owners_right(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await make.accept(store, fence, make.task(), make.message(0))
    await store.append_events([make.batch(fence, make.event(1))])
    assert await store.delete_session(make.SESSION)
    assert not await store.delete_session(make.SESSION)
    assert await store.get_session(make.SESSION) is None
    assert await store.load_messages(make.SESSION, limit=9) == []
    assert await store.last_event_seq(make.SESSION) == 0
    assert await store.active_task(make.SESSION) is None
    assert await store.append_events([make.batch(fence, make.event(2))]) == [make.SESSION]
    with pytest.raises(StaleEpoch):
        await make.accept(store, fence, make.task("t2"))
    with pytest.raises(StaleEpoch):
        await store.reserve_seq(fence, 5000)


async def test_messages_are_paged_backwards_and_given_in_order(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    messages = [make.message(n, body=f'{{"content":"{n} \\u0000 é"}}'.encode()) for n in range(6)]
    await make.accept(store, fence, make.task(), *messages)
    assert await store.load_messages(make.SESSION, limit=2) == messages[4:]
    assert await store.load_messages(make.SESSION, limit=99) == messages
    assert await store.page_messages(make.SESSION, before=4, limit=3) == messages[1:4]
    assert await store.page_messages(make.SESSION, before=None, limit=1) == messages[5:]
    assert await store.page_messages(make.SESSION, before=0, limit=3) == []
    stored = await store.get_session(make.SESSION)
    assert stored is not None
    assert (stored.message_count, stored.updated_us) == (6, 10)
