"""The outbox: recorded once, in order for each peer, bounded for each route, fenced by attempt; on every database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.outbox_records import OutboxFilter
from storage.records import OwnerId
from storage.store import AsyncStorageBackend
from tests.conformance.store.outbox_make import SENDER, claim, ids, item, result, sender


async def test_a_delivery_is_recorded_once(store: AsyncStorageBackend) -> None:
    new = item("d1", peer="chat \u00e4", body='{"text":"ä"}'.encode())
    assert await store.post_outbox([new]) == 1
    assert await store.post_outbox([new, item("d1", peer="another")]) == 0
    found = await store.get_outbox("d1")
    assert found is not None
    assert (found.channel, found.account, found.peer, found.body) == ("memory", "a", "chat ä", new.body)
    assert (found.state, found.ready, found.attempt, found.failures, found.seq) == ("pending", True, 0, 0, 1)
    assert await store.get_outbox("d2") is None


async def test_a_claim_makes_an_attempt_and_takes_it_from_others(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item("d1")])
    await sender(store)
    (claimed,) = await claim(store)
    assert (claimed.state, claimed.ready, claimed.attempt, claimed.owner_id) == ("sending", False, 1, SENDER)
    assert (claimed.claimed_us, claimed.first_us) == (50, 50)
    assert await store.ready_routes() == []
    assert await claim(store) == []


async def test_without_a_live_lease_nothing_is_claimed(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item("d1")])
    assert await claim(store) == []
    await sender(store)
    await store.expire_owner(SENDER)
    assert await claim(store) == []


async def test_a_peers_deliveries_go_one_after_the_other_in_their_order(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item(f"d{n}", created_us=10 + n) for n in range(3)])
    await store.post_outbox([item("other", peer="q", created_us=1)])
    await sender(store)
    first = await claim(store)
    assert ids(first) == ["d0", "other"]
    done, following = await store.record_outbox([result(one) for one in first])
    assert (done, following) == ([True, True], 1)
    for name in ("d1", "d2"):
        (claimed,) = await claim(store)
        assert claimed.delivery_id == name
        assert await claim(store) == []
        await store.record_outbox([result(claimed)])
    assert await store.ready_routes() == []


async def test_what_is_tried_again_keeps_its_place(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item("d0"), item("d1")])
    await sender(store)
    (claimed,) = await claim(store)
    again = result(claimed, "pending", "refused", status=500, code="http_500", detail="no\x00t now", due_us=90)
    assert await store.record_outbox([again]) == ([True], 0)
    assert await store.ready_routes() == [("memory a", 90)]
    assert await claim(store, now_us=89) == []
    (claimed,) = await claim(store, now_us=90)
    assert (claimed.delivery_id, claimed.attempt, claimed.failures, claimed.first_us) == ("d0", 2, 1, 50)
    await store.record_outbox([result(claimed, "dead", "refused")])
    (claimed,) = await claim(store)
    assert claimed.delivery_id == "d1"
    (attempt, _) = await store.outbox_attempts("d0")
    assert (attempt.attempt, attempt.outcome, attempt.status, attempt.code) == (1, "refused", 500, "http_500")
    assert (attempt.detail, attempt.started_us, attempt.finished_us) == ("no\ufffdt now", 50, 60)


async def test_a_claim_takes_of_each_route_what_is_free_for_it(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item(f"{a}{n}", peer=str(n), account=a) for a in "abc" for n in range(5)])
    await sender(store)
    assert await store.ready_routes() == [("memory a", 10), ("memory b", 10), ("memory c", 10)]
    claimed = await store.claim_outbox(SENDER, [("memory a", 2), ("memory c", 1), ("memory x", 9)], now_us=50)
    assert ids(claimed) == ["a0", "a1", "c0"]
    assert len(await claim(store, 2, route="memory b")) == 2


async def test_of_concurrent_claimers_one_gets_each(two_stores: Any) -> None:
    one, two = two_stores
    await one.post_outbox([item(f"d{n:02}", peer=str(n), account="ab"[n % 2]) for n in range(40)])
    await sender(one)
    other = await sender(two, OwnerId("sender-2"))
    rounds = [claim(one, 2) if n % 2 else claim(two, 2, other) for n in range(40)]
    found = [name for claimed in await asyncio.gather(*rounds) for name in ids(claimed)]
    assert sorted(found) == [f"d{n:02}" for n in range(40)]


async def test_lines_lose_nothing_when_ends_and_new_deliveries_meet(two_stores: Any) -> None:
    """The end that empties a line and the delivery that joins it: one of them makes what is left ready."""
    one, two = two_stores
    await sender(one)
    total, seen, last = 60, 0, -1
    posting = asyncio.create_task(_post_one_by_one(two, total))
    async with asyncio.timeout(60):
        while seen < total:
            claimed = await claim(one)
            assert len(claimed) <= 1, "two of one line were ready"
            for found in claimed:
                assert int(found.delivery_id) > last
                last = int(found.delivery_id)
            await one.record_outbox([result(found) for found in claimed])
            seen += len(claimed)
    await posting


async def _post_one_by_one(store: AsyncStorageBackend, total: int) -> None:
    for n in range(total):
        await store.post_outbox([item(str(n))])


@pytest.mark.parametrize("fenced", [True, False])
async def test_a_late_end_is_refused_once_another_has_taken_over(store: AsyncStorageBackend, fenced: bool) -> None:
    """A sender that was stopped wakes up: its attempt is over. The twin shows that the number is what refuses it."""
    await store.post_outbox([item("d1"), item("d2")])
    await sender(store)
    other = await sender(store, OwnerId("sender-2"))
    (late,) = await claim(store)
    await store.expire_owner(SENDER)
    (left,) = await store.abandoned_outbox(other, limit=9)
    assert (left.delivery_id, left.attempt) == ("d1", 1)
    crashed = result(left, "pending", "crashed", status=None)
    assert await store.record_outbox([crashed]) == ([True], 0)
    assert await store.record_outbox([result(late)]) == ([False], 0), "nobody sends it now"
    (taken,) = await claim(store, owner=other)
    assert (taken.delivery_id, taken.attempt) == ("d1", 2)
    word = result(late) if fenced else result(taken)
    assert await store.record_outbox([word]) == ([not fenced], 0 if fenced else 1)
    found = await store.get_outbox("d1")
    assert found is not None
    assert found.state == ("sending" if fenced else "sent")
    assert len(await store.outbox_attempts("d1")) == (1 if fenced else 2)


async def test_recording_an_end_again_is_harmless(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item("d1"), item("d2"), item("d3")])
    await sender(store)
    (claimed,) = await claim(store)
    assert await store.record_outbox([result(claimed)]) == ([True], 1)
    assert await store.record_outbox([result(claimed)]) == ([True], 0)
    assert await store.record_outbox([result(claimed, finished_us=61)]) == ([False], 0)
    assert ids(await claim(store)) == ["d2"]
    assert await claim(store) == []


async def test_a_claim_whose_answer_was_lost_is_given_back(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item("d1")])
    await sender(store)
    await claim(store)
    (mine,) = await store.abandoned_outbox(SENDER, limit=9)
    assert await store.record_outbox([result(mine, "pending", None, counted=False)]) == ([True], 0)
    assert await store.outbox_attempts("d1") == []
    (claimed,) = await claim(store)
    assert (claimed.attempt, claimed.failures) == (2, 0)


async def test_finished_ones_are_sent_again_at_the_end_of_their_line(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item("d1"), item("d2")])
    await sender(store)
    for state, outcome in (("dead", "refused"), ("sent", "sent")):
        (claimed,) = await claim(store)
        await store.record_outbox([result(claimed, state, outcome)])
    assert await store.retry_outbox(["d1", "d2", "d1", "none"], now_us=70) == ["d1", "d2"]
    found = await store.get_outbox("d1")
    assert found is not None
    assert (found.state, found.ready, found.failures, found.attempt, found.first_us) == ("pending", True, 0, 1, None)
    (claimed,) = await claim(store, now_us=70)
    assert (claimed.delivery_id, claimed.attempt) == ("d1", 2)
    assert await store.retry_outbox(["d1"], now_us=71) == [], "it is being sent"
    await store.record_outbox([result(claimed, "pending", "refused", due_us=900)])
    assert await store.retry_outbox(["d1"], now_us=80) == ["d1"]
    (claimed,) = await claim(store, now_us=80)
    await store.record_outbox([result(claimed)])
    assert ids(await claim(store, now_us=80)) == ["d2"]


async def test_dropping_makes_the_next_ready(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item(f"d{n}") for n in range(4)])
    await sender(store)
    assert await store.drop_outbox(["d0", "d2", "none"], now_us=70) == ["d0", "d2"]
    assert await store.drop_outbox(["d0"], now_us=70) == []
    (claimed,) = await claim(store)
    assert claimed.delivery_id == "d1"
    assert await store.drop_outbox(["d1"], now_us=70) == [], "it is being sent"
    await store.record_outbox([result(claimed, "dead", "refused")])
    assert await store.drop_outbox(["d1"], now_us=70) == ["d1"]
    assert ids(await claim(store)) == ["d3"]


async def test_they_are_listed_newest_first_and_counted_by_state(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item(f"d{n}", peer=str(n), account="ab"[n % 2], created_us=10 + n) for n in range(5)])
    await sender(store)
    claimed = await claim(store, 1)
    await store.record_outbox([result(claimed[0], "dead", "refused")])
    everything = await store.list_outbox(OutboxFilter(), before=None, limit=9)
    assert [one.delivery_id for one in everything] == ["d4", "d3", "d2", "d1", "d0"]
    page = await store.list_outbox(OutboxFilter(), before=(13, "d3"), limit=2)
    assert [one.delivery_id for one in page] == ["d2", "d1"]
    only = await store.list_outbox(OutboxFilter(state="pending", account="a", channel="memory"), before=None, limit=9)
    assert [one.delivery_id for one in only] == ["d4", "d2"]
    assert await store.list_outbox(OutboxFilter(channel="other"), before=None, limit=9) == []
    states = await store.outbox_states()
    assert states == {("memory", "pending"): (3, 12), ("memory", "sending"): (1, 11), ("memory", "dead"): (1, 10)}


async def test_retention_removes_what_is_over(store: AsyncStorageBackend) -> None:
    await store.post_outbox([item(f"d{n}", peer=str(n)) for n in range(3)])
    await sender(store)
    claimed = sorted(await claim(store), key=lambda one: one.delivery_id)
    ends = [("sent", "sent"), ("dead", "refused"), ("sent", "sent")]
    await store.record_outbox(
        [result(c, *end, finished_us=60 + n) for n, (c, end) in enumerate(zip(claimed, ends, strict=True))]
    )
    assert await store.delete_outbox(before_us=61, limit=10) == 1
    left = await store.list_outbox(OutboxFilter(), before=None, limit=9)
    assert [one.delivery_id for one in left] == ["d2", "d1"]
    assert await store.outbox_attempts("d0") == []
    assert len(await store.outbox_attempts("d1")) == 1
    assert await store.delete_outbox(before_us=1000, limit=10) == 1
    assert await store.post_outbox([item("d9", peer="0")]) == 1
    assert ids(await claim(store)) == ["d9"]


@pytest.mark.parametrize(("channel", "account"), [("", "a"), ("memory", ""), ("a b", "a"), ("memory", "a\tb")])
def test_routes_are_words(channel: str, account: str) -> None:
    with pytest.raises(ValueError, match="expected a word"):
        item("d", channel=channel, account=account)
