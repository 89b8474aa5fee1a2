"""A turn's end and the deliveries that tell of it: both or neither, and each once; on every database."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage.errors import StaleEpoch, StorageError
from storage.outbox_records import OutboxFilter
from storage.records import Fence, OwnerId, SessionId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.conformance.store.outbox_make import claim, ids, of_turn, result, sender
from tests.conformance.store.test_task_queue import claim as claim_tasks
from tests.conformance.store.test_task_queue import finished, new, pool


async def posted(store: AsyncStorageBackend) -> list[str]:
    return ids(await store.list_outbox(OutboxFilter(), before=None, limit=99))


def with_outbox(turn: Any, *items: Any) -> Any:
    return msgspec.structs.replace(turn, end=msgspec.structs.replace(turn.end, outbox=items))


async def test_a_finished_turn_has_its_deliveries_in_order(store: AsyncStorageBackend) -> None:
    held = await make.fence(store)
    await make.accept(store, held, make.task())
    odd = b'{"answer":"nul \\u0000, quote \\" and \xc3\xa4"}'
    items = [of_turn("t1", "d2", body=odd), of_turn("t1", "d1"), of_turn("t1", "e", peer="q")]
    assert await make.finish(store, held, outbox=items)
    assert await make.finish(store, held, outbox=items), "repeating it is harmless"
    assert await posted(store) == ["d1", "d2", "e"]
    await sender(store)
    claimed = await claim(store)
    assert ids(claimed) == ["d2", "e"]
    assert [one.body for one in claimed if one.delivery_id == "d2"] == [odd]
    await store.record_outbox([result(one) for one in claimed])
    assert ids(await claim(store)) == ["d1"]


async def test_an_end_that_is_refused_posts_nothing(store: AsyncStorageBackend) -> None:
    held = await make.fence(store)
    await make.accept(store, held, make.task())
    assert not await make.finish(store, held, attempt=2, outbox=[of_turn()])
    with pytest.raises(StaleEpoch):
        await make.finish(store, Fence(held.session_id, held.epoch + 1), outbox=[of_turn()])
    assert await posted(store) == []
    assert await make.finish(store, held, outbox=[of_turn()])
    assert not await make.finish(store, held, status="failed", outbox=[of_turn("t1", "another")])
    assert await posted(store) == ["d-t1"]


async def test_a_write_that_fails_behind_the_end_takes_everything_back(store: AsyncStorageBackend) -> None:
    """As a crash in the middle does: no end without its delivery, and no delivery without its end."""
    held = await make.fence(store)
    await make.accept(store, held, make.task())
    bad = msgspec.structs.replace(of_turn(), body=b'{"text":"\xff"}')
    with pytest.raises((UnicodeDecodeError, StorageError)):
        await make.finish(store, held, outbox=[of_turn("t1", "d1"), bad])
    task = await store.get_task(make.task().turn_id)
    assert task is not None
    assert (task.status, await posted(store)) == ("running", [])
    assert await make.finish(store, held, outbox=[of_turn()])


async def test_turns_that_end_together_each_have_their_deliveries(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new(f"t{n}") for n in range(4)], now_us=20)
    await pool(store)
    claimed = await claim_tasks(store)
    ends = [with_outbox(finished(c), of_turn(c.task.turn_id, peer="same")) for c in claimed]
    late = msgspec.structs.replace(ends[0], end=msgspec.structs.replace(ends[0].end, attempt=9))
    assert await store.finish_and_leave([late, *ends[1:]]) == [False, True, True, True]
    assert await posted(store) == [f"d-t{n}" for n in (1, 2, 3)]
    assert await store.finish_and_leave(ends) == [True] * 4
    assert await store.finish_and_leave(ends) == [True] * 4
    assert await posted(store) == [f"d-t{n}" for n in range(4)]
    await sender(store)
    order = []
    for _ in range(4):
        (one,) = await claim(store)
        order.append(one.delivery_id)
        await store.record_outbox([result(one)])
    assert sorted(order) == [f"d-t{n}" for n in range(4)]
    assert await store.ready_routes() == []


async def test_a_task_that_ends_again_has_another_delivery_in_the_same_line(two_stores: Any) -> None:
    store, other = two_stores
    await store.enqueue_tasks([new("t1")], now_us=20)
    await pool(store)
    (claimed,) = await claim_tasks(store)
    await store.finish_and_leave([with_outbox(finished(claimed, "dead"), of_turn("t1", "first"))])
    assert (await store.requeue_task(claimed.task.turn_id, now_us=30)).task is not None
    (again,) = await claim_tasks(store)
    assert await other.finish_and_leave([with_outbox(finished(again), of_turn("t1", "second"))]) == [True]
    await sender(other)
    assert ids(await claim(other)) == ["first"]


async def test_a_cancel_before_the_start_posts_too(store: AsyncStorageBackend) -> None:
    await store.enqueue_tasks([new("t1")], now_us=20)
    await store.register_owner(OwnerId("own"), "node", lease_s=60)
    opened = await store.open_session(SessionId("s-t1"), OwnerId("own"), seq_block=64, now_us=40)
    held = Fence(SessionId("s-t1"), opened.session.epoch)
    ended = {"status": "cancelled", "attempt": 0, "outbox": [of_turn("t1")]}
    assert await make.finish(store, held, **ended)
    assert await posted(store) == ["d-t1"]
