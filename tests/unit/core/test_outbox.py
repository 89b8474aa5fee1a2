"""The outbox: in order for each peer, bounded for each account, patient with one that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from actors.channels.base import Lost, Refused
from actors.messages import Drain, OpenSession, Sweep, Wake, encode
from storage.errors import StorageUnavailable
from storage.records import SessionId
from storage.store import AsyncStorageBackend
from tests.support.facts import eventually, tick
from tests.support.outbox_bench import OutboxBench

Make = Callable[..., Coroutine[Any, Any, OutboxBench]]
AWAY = Refused(status=503, code="http_503", detail="away")


@pytest.fixture
async def bench(store: AsyncStorageBackend) -> AsyncIterator[Make]:
    made: list[OutboxBench] = []

    async def build(**outbox: Any) -> OutboxBench:
        made.append(OutboxBench(store, **outbox))
        await made[-1].start()
        return made[-1]

    yield build
    for found in made:
        await found.stop()


async def test_it_registers_and_is_woken_by_the_directory(bench: Make) -> None:
    found = await bench()
    await eventually(lambda: "outbox-1" in found.directory.directory.outboxes.known, "the directory knows it")
    for _ in range(20):
        found.directory.handle.ring_outboxes()
    await eventually(lambda: found.directory.reach.heard("outbox-1", Wake), "it is told")
    assert len(found.directory.reach.heard("outbox-1", Wake)) < 20, "a burst is few calls"
    assert (await found.directory.describe()).info["outboxes"] == [{"name": "outbox-1", "node_id": "node-0"}]


async def test_the_lease_of_one_that_is_dead_ends_and_others_are_told(bench: Make) -> None:
    found = await bench()
    other = found.another("outbox-2")
    await other.start()
    await eventually(lambda: len(found.directory.directory.outboxes.known) == 2, "the directory knows both")
    await other.crash()
    assert len(await found.real.live_owners()) == 2
    found.directory.reach.kill("outbox-2")
    await eventually(lambda: found.directory.reach.heard("outbox-1", Sweep), "the other is told")
    assert await found.real.live_owners() == [found.outbox._lease.owner_id]


async def test_a_peers_deliveries_are_sent_in_order_and_one_at_a_time(bench: Make) -> None:
    found = await bench()
    names = [f"d{n:02}" for n in range(12)]
    await found.post(*names, peer="chat")
    await found.look()
    await found.ended(*names)
    assert found.channel.ids() == names
    assert found.channel.most_per_peer["a chat"] == 1


async def test_an_account_has_at_most_its_limit_under_way(bench: Make) -> None:
    found = await bench(per_account=3)
    gate = found.channel.hold("a")
    names = [f"d{n}" for n in range(10)]
    await found.post(*names)
    await found.look()
    await eventually(lambda: len(found.channel.got) == 3, "three are under way")
    assert (await found.described()).gauges["outbox_in_flight"] == 3
    gate.set()
    await found.ended(*names)
    assert found.channel.most["a"] == 3


async def test_a_hung_account_does_not_hold_others_up(bench: Make) -> None:
    found = await bench(per_account=2, max_in_flight=4)
    gate = found.channel.hold("hung")
    await found.post(*(f"h{n}" for n in range(50)), account="hung")
    others = [f"{account}{n}" for account in ("b", "c") for n in range(8)]
    for name in others:
        await found.post(name, account=name[0])
    await found.look()
    await found.ended(*others)
    assert found.channel.running["hung"] == 2
    gate.set()
    await found.ended(*(f"h{n}" for n in range(50)))


async def test_all_accounts_together_have_at_most_the_whole_limit_under_way(bench: Make) -> None:
    found = await bench(per_account=5, max_in_flight=4)
    gates = [found.channel.hold(account) for account in "abc"]
    for account in "abc":
        await found.post(*(f"{account}{n}" for n in range(5)), account=account)
    await found.look()
    await eventually(lambda: len(found.channel.got) == 4, "four are under way")
    await found.look()
    for gate in gates:
        gate.set()
    await found.ended(*(f"{account}{n}" for account in "abc" for n in range(5)))


async def test_what_would_be_refused_again_is_tried_once(bench: Make) -> None:
    found = await bench()
    found.channel.answers["a"] = [Refused(status=404, code="http_404", detail="x" * 5000)]
    await found.post("d1", "d2", peer="chat")
    await found.look()
    await found.ended("d1", state="dead")
    await found.ended("d2")
    (attempt,) = await found.real.outbox_attempts("d1")
    assert (attempt.outcome, attempt.status, attempt.code, attempt.detail) == ("refused", 404, "http_404", "x" * 1024)
    assert (await found.described()).gauges["outbox_dead"] == 1


async def test_a_retry_waits_as_long_as_the_provider_asks_and_keeps_the_order(bench: Make) -> None:
    found = await bench()
    found.channel.answers["a"] = [Refused(status=500, code="http_500", retry_after_s=30.0)]
    await found.post("d1", "d2", peer="chat")
    await found.look()
    item = await found.recorded("d1", 1)
    assert item.state == "pending"
    assert 30 <= (item.due_us - found.clock.now_us()) / 1e6 <= 31
    found.clock.advance(29)
    await found.look()
    await tick(0.05)
    assert found.channel.ids() == ["d1"], "too early, and nothing overtakes it"
    found.clock.advance(3)
    await found.look()
    await found.ended("d1", "d2")
    assert found.channel.ids() == ["d1", "d1", "d2"]
    assert [delivery.attempt for delivery in found.channel.got] == [1, 2, 1]


async def test_retry_after_is_capped(bench: Make) -> None:
    found = await bench(max_retry_after_s=60.0)
    found.channel.answers["a"] = [Refused(status=429, code="http_429", retry_after_s=1e6)]
    await found.post("d1", "d2")
    await found.look()
    item = await found.recorded("d1", 1)
    assert (item.due_us - found.clock.now_us()) / 1e6 <= 61


async def test_too_many_requests_pause_the_account_and_no_other(bench: Make) -> None:
    found = await bench(per_account=1)
    found.channel.answers["a"] = [Refused(status=429, code="http_429", retry_after_s=30.0)]
    await found.post("a1", "a2", account="a")
    await found.post("b1", account="b")
    await found.look()
    await found.ended("b1")
    await found.recorded("a1", 1)
    await found.look()
    await tick(0.05)
    assert found.channel.ids().count("a2") == 0
    found.clock.advance(31)
    await found.look()
    await found.ended("a1", "a2")


async def test_a_breaker_opens_waits_without_attempts_and_tries_with_one(bench: Make) -> None:
    found = await bench(breaker_failures=3, breaker_rest_s=10.0, per_account=1)
    found.channel.answers["a"] = [AWAY] * 4
    names = [f"d{n}" for n in range(8)]
    await found.post(*names)
    await found.post("b1", account="b")
    await found.look()
    await eventually(lambda: found.channel.ids().count("b1") == 1, "others are sent")

    async def is_open() -> bool:
        return (await found.described()).gauges["outbox_breakers_open"] == 1

    await eventually(is_open, "the account is left alone")
    tried = [name for name in found.channel.ids() if name != "b1"]
    assert len(tried) == 3
    (breaker,) = (await found.described()).info["breakers"]
    assert (breaker["channel"], breaker["account"]) == ("memory", "a")
    await found.look()
    await tick(0.05)
    waiting = [name for name in names if name not in tried]
    assert [(await found.item(name)).attempt for name in waiting] == [0] * 5
    found.clock.advance(11)
    gate = found.channel.hold("a")
    await found.look()
    await eventually(lambda: len(found.channel.got) == 5, "one tries")
    await found.look()
    await tick(0.05)
    assert len(found.channel.got) == 5, "and one only"
    gate.set()
    await eventually(lambda: found.channel.running["a"] == 0, "it failed")
    await tick(0.05)
    assert len(found.channel.got) == 5
    found.clock.advance(21)
    await found.look()
    await eventually(lambda: len(found.channel.got) > 6, "it answers, so everything goes")
    found.clock.advance(3600)
    await found.look()
    await found.ended(*names)
    assert not await is_open()


@pytest.mark.parametrize("answer", [Lost(detail="no answer"), RuntimeError("a fault in the channel")])
async def test_an_unknown_outcome_is_marked_and_sent_again_under_the_same_id(bench: Make, answer: Any) -> None:
    found = await bench()
    found.channel.answers["a"] = [answer]
    await found.post("d1")
    await found.look()
    await found.recorded("d1", 1)
    found.clock.advance(10)
    await found.look()
    await found.ended("d1")
    first, second = await found.real.outbox_attempts("d1")
    assert (first.outcome, second.outcome) == ("lost", "sent")
    assert found.channel.ids() == ["d1", "d1"]


async def test_a_channel_that_never_answers_is_given_up(bench: Make) -> None:
    found = await bench(send_timeout_s=0.05)
    found.channel.hold("a")
    await found.post("d1")
    await found.look()
    item = await found.recorded("d1", 1)
    assert (item.state, item.code) == ("pending", "lost")


async def test_one_that_dies_is_made_up_for_and_its_late_word_is_refused(bench: Make) -> None:
    found = await bench()
    gate = found.channel.hold("a")
    await found.post("d1", "d2", peer="chat")
    await found.look()
    await eventually(lambda: found.channel.running["a"] == 1, "it is under way")
    first = found.outbox._lease.owner_id
    other = found.another("outbox-2")
    await other.start()
    await found.real.expire_owner(first)  # as the directory does for one that is dead
    await other.handle(encode(Sweep()))
    await eventually(lambda: len(found.channel.got) == 2, "the other sends it")
    assert found.channel.ids() == ["d1", "d1"]
    (attempt,) = await found.real.outbox_attempts("d1")
    assert attempt.outcome == "crashed"
    gate.set()
    await found.ended("d1", "d2")

    async def refused() -> bool:
        return (await found.described()).gauges["outbox_refused_by_fence"] == 1

    await eventually(refused, "the late word of the first is refused")
    assert [a.outcome for a in await found.real.outbox_attempts("d1")] == ["crashed", "sent"]
    await other.stop()


async def test_a_claim_whose_answer_is_lost_is_found_and_sent(bench: Make) -> None:
    found = await bench()
    real, lost = found.store.claim_outbox, []

    async def claim(*args: Any, **kwargs: Any) -> Any:
        items = await real(*args, **kwargs)
        if not lost:
            lost.append(items)
            raise StorageUnavailable("the answer was lost")
        return items

    setattr(found.store, "claim_outbox", claim)  # noqa: B010
    await found.post("d1")
    await found.look()
    await eventually(lambda: lost, "the claim was made")
    await found.look()
    await found.ended("d1")
    (attempt,) = await found.real.outbox_attempts("d1")
    assert (attempt.attempt, attempt.outcome) == (2, "sent")
    assert found.channel.ids() == ["d1"]


async def test_a_database_away_keeps_the_result_until_it_is_recorded(bench: Make) -> None:
    found = await bench()
    found.store.fail("record_outbox", times=1)
    await found.post("d1")
    await found.look()
    await found.ended("d1")
    assert found.channel.ids() == ["d1"]


async def test_many_results_are_recorded_at_a_time(bench: Make) -> None:
    found = await bench(per_account=50)
    gate = found.channel.hold("a")
    names = [f"d{n}" for n in range(50)]
    await found.post(*names)
    await found.look()
    await eventually(lambda: found.channel.running["a"] == 50, "all are under way")
    gate.set()
    await found.ended(*names)
    assert found.store.calls["record_outbox"] <= 3


async def test_a_channel_that_is_not_there_is_left_alone(bench: Make) -> None:
    found = await bench()
    await found.post("d1", channel="other")
    await found.post("d2")
    await found.look()
    await found.ended("d2")
    assert (await found.item("d1")).attempt == 0


async def test_draining_ends_what_is_under_way_and_begins_nothing(bench: Make) -> None:
    found = await bench()
    gate = found.channel.hold("a")
    await found.post("d1", "d2", peer="chat")
    await found.look()
    await eventually(lambda: found.channel.got, "it is under way")
    draining = asyncio.create_task(found.tell(Drain(grace_s=5.0)))
    await tick(0.02)
    assert not draining.done()
    gate.set()
    await draining
    await found.ended("d1")
    assert found.channel.ids() == ["d1"]


async def test_draining_does_not_wait_longer_than_it_may(bench: Make) -> None:
    found = await bench()
    found.channel.hold("a")
    await found.post("d1")
    await found.look()
    await eventually(lambda: found.channel.got, "it is under way")
    await found.tell(Drain(grace_s=0.02))
    assert (await found.item("d1")).state == "sending"


async def test_it_takes_nothing_else(bench: Make) -> None:
    found = await bench()
    answer = await found.outbox.handle(encode(OpenSession(session_id=SessionId("s"))))
    assert b"does not take" in answer


async def test_an_idle_outbox_does_not_ask_again_and_again(bench: Make) -> None:
    found = await bench()
    await found.post("d1")
    await found.look()
    await found.ended("d1")
    await eventually(lambda: found.channel.running["a"] == 0, "it is done")
    await tick(0.05)
    looks = found.store.calls["ready_routes"]
    await tick(0.1)
    assert found.store.calls["ready_routes"] == looks


@pytest.mark.parametrize("while_it", ["claim_outbox", "abandoned_outbox"])
async def test_a_recovery_that_is_asked_for_while_it_is_busy_is_not_forgotten(bench: Make, while_it: str) -> None:
    found = await bench()
    other = found.another("outbox-2")
    dead = other._lease
    await dead.take()
    await found.post("d1")
    await found.real.claim_outbox(dead.owner_id, [("memory a", 1)], now_us=found.clock.now_us())
    await found.post("d2")
    gate = found.store.hold(while_it)
    await found.tell(Wake() if while_it == "claim_outbox" else Sweep())
    await found.store.at_gate.wait()
    await found.real.expire_owner(dead.owner_id)
    await found.tell(Sweep())
    await tick(0.02)
    gate.set()
    await found.ended("d1", "d2")
