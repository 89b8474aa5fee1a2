"""A host's sessions: accepting, queueing, interrupting, waiting for permits, leaving, and losing the lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.errors import ServiceUnavailable, SessionNotFound, UserBusy, UserQuotaExceeded
from actors.handles import ask
from actors.messages import (
    Batch,
    CancelTurn,
    Drain,
    DropSession,
    Follow,
    Grant,
    OpenSession,
    ReadBuffer,
    Report,
    Unfollow,
)
from actors.models.base import Completed
from actors.replies import Buffered, Done, Following
from storage.records import SessionId, TurnId, UserId
from storage.store import AsyncStorageBackend
from tests.support.doubles import PlayedModel, deltas
from tests.support.facts import eventually
from tests.support.session_bench import SESSION, USER, SessionBench

ANSWER = (*deltas("fine"), Completed("fine"))
Make = Callable[..., SessionBench]


@pytest.fixture
async def bench(store: AsyncStorageBackend) -> AsyncIterator[Make]:
    made: list[SessionBench] = []

    def build(**sessions: Any) -> SessionBench:
        made.append(SessionBench(store, **sessions))
        return made[-1]

    yield build
    for found in made:
        await found.stop()


async def busy(found: SessionBench, *more: Any) -> asyncio.Event:
    """A turn `t1` that runs until the event is set."""
    gate = asyncio.Event()
    await found.host(model := PlayedModel((*deltas("x"), gate, Completed("x")), *more))
    await found.submit("t1")
    await model.waiting.wait()
    return gate


async def statuses(found: SessionBench, *turns: str) -> list[str]:
    tasks = [await found.real.get_task(TurnId(turn)) for turn in turns]
    return [task.status for task in tasks if task is not None]


async def test_turns_of_a_session_run_one_after_the_other(bench: Make) -> None:
    found = bench()
    gate = await busy(found, ANSWER, ANSWER)
    second, third = await found.submit("t2"), await found.submit("t3")
    assert [(s.status, s.position, s.reason) for s in (second, third)] == [
        ("queued", 1, "session_busy"),
        ("queued", 2, "session_busy"),
    ]
    assert await statuses(found, "t1", "t2", "t3") == ["running", "queued", "queued"]
    gate.set()
    await found.ended("t3")
    terminals = [e.turn_id for e in found.events if e.kind == "turn_terminal"]
    assert terminals == ["t1", "t2", "t3"]
    await eventually(lambda: not found.directory.held, "the permit is free")


async def test_a_busy_session_refuses_when_asked_to(bench: Make) -> None:
    found = bench(max_queued_per_session=1)
    gate = await busy(found, ANSWER)
    with pytest.raises(UserBusy):
        await found.submit("t2", busy="reject")
    await found.submit("t3")
    with pytest.raises(UserQuotaExceeded):
        await found.submit("t4")
    gate.set()
    await found.ended("t3")
    assert await found.real.get_task(TurnId("t2")) is None


async def test_an_interrupt_ends_what_runs_and_goes_ahead_of_the_queue(bench: Make) -> None:
    found = bench()
    await busy(found, ANSWER, ANSWER)
    await found.submit("t2")
    urgent = await found.submit("t3", busy="interrupt")
    assert (urgent.status, urgent.position, urgent.reason) == ("queued", 1, "interrupting")
    await found.ended("t2")
    assert [e.turn_id for e in found.events if e.kind == "turn_terminal"] == ["t1", "t3", "t2"]
    assert await statuses(found, "t1", "t3", "t2") == ["interrupted", "succeeded", "succeeded"]


async def test_a_queued_turn_can_be_cancelled(bench: Make) -> None:
    found = bench()
    gate = await busy(found, ANSWER)
    await found.submit("t2")
    receipt = await found.cancel("t2")
    assert (receipt.cancelled, receipt.status) == (True, "cancelled")
    gate.set()
    await found.ended("t1")
    assert await statuses(found, "t1", "t2") == ["succeeded", "cancelled"]
    assert (await found.cancel("nobody")).turn_id is None


async def test_a_request_that_is_repeated_gets_its_first_answer(bench: Make) -> None:
    found = bench()
    gate = await busy(found, ANSWER)
    first = await found.submit("t2", idempotency_key="key")
    again = await found.submit("t3", idempotency_key="key")
    rejecting = await found.submit("t4", idempotency_key="key", busy="reject")
    lost = await found.submit("t2", again=True)
    assert [(s.turn_id, s.duplicate) for s in (first, again, rejecting, lost)] == [
        ("t2", False),
        ("t2", True),
        ("t2", True),
        ("t2", True),
    ]
    gate.set()
    await found.ended("t2")
    stored = await found.stored()
    assert [e.seq for e in stored][-1] == found.events[-1].seq
    assert sum(e.seq - e.first_seq + 1 for e in stored) == found.events[-1].seq


async def test_without_a_permit_a_turn_waits_and_starts_with_the_grant(bench: Make) -> None:
    found = bench(max_active=1)
    await found.host(PlayedModel(ANSWER))
    await found.directory.acquire("elsewhere", "other")
    waiting = await found.submit("t1")
    assert (waiting.status, waiting.position, waiting.reason) == ("queued", 1, "service_limit")
    found.directory.reach.answers["host-1"] = _pass_on(found)
    await found.directory.release("elsewhere", "other")
    assert (await found.ended("t1")).status == "succeeded"
    await eventually(lambda: not found.directory.held, "the permit is free")


async def test_without_a_permit_reject_and_a_full_queue_say_so(bench: Make) -> None:
    found = bench(max_active=1)
    await found.host(PlayedModel(ANSWER))
    await found.directory.acquire("elsewhere", "other")
    with pytest.raises(UserBusy) as refused:
        await found.submit("t1", busy="reject")
    assert refused.value.detail == {"reason": "service_limit"}
    assert await found.real.get_task(TurnId("t1")) is None


async def test_an_old_grant_starts_nothing_without_a_permit(bench: Make) -> None:
    found = bench(max_active=1)
    await found.host(PlayedModel(ANSWER))
    await found.directory.acquire("elsewhere", "other")
    await found.submit("t1")
    await found.tell(Grant(session_id=SESSION))
    assert await statuses(found, "t1") == ["queued"]
    assert found.directory.held == {"elsewhere": "other"}
    await found.tell(Grant(session_id=SessionId("not open here")))
    await found.cancel("t1")
    assert found.directory.waiting == []


async def test_a_lost_release_is_made_up_for(bench: Make) -> None:
    found = bench(max_active=1)
    gate = await busy(found)
    real = found.directory.handle.call
    handle = found.runner.turns._directory
    handle.call = _unreachable
    gate.set()
    await found.ended("t1")
    assert found.directory.held == {SESSION: "host-1"}
    assert not found.runner.idle
    handle.call = real
    await found.hosts[-1]._upkeep.run_once()
    assert found.directory.held == {}
    assert found.runner.session.permit == "none"


async def test_followers_hear_everything_until_they_leave(bench: Make) -> None:
    found = bench()
    gate = await busy(found)
    command = Follow(session_id=SESSION, user_id=USER, gateway="gateway-2")
    following = await ask(found.hosts[-1].handle, command, Following)
    assert (following.active_turn, following.running, following.epoch) == ("t1", True, 1)
    gate.set()
    await found.ended("t1")

    def heard() -> list[int]:
        batches = found.directory.reach.heard("gateway-2", Batch)
        return [e.seq for batch in batches for e in batch.events]  # type: ignore[union-attr]

    await eventually(lambda: heard()[-1:] == [found.runner.stream.latest], "the follower heard the end")
    assert heard()[0] == following.latest + 1
    reading = ReadBuffer(session_id=SESSION, after=following.latest)
    buffered = await ask(found.hosts[-1].handle, reading, Buffered)
    assert [e.seq for e in buffered.events] == heard()
    await found.tell(Unfollow(session_ids=(SESSION,), gateway="gateway-2"))
    assert list(found.runner.stream.lines) == ["gateway"]


async def test_a_session_of_somebody_else_does_not_exist(bench: Make) -> None:
    found = bench()
    await busy(found)
    mallory = UserId("mallory")
    with pytest.raises(SessionNotFound):
        await found.tell(Follow(session_id=SESSION, user_id=mallory, gateway="gateway"))
    with pytest.raises(SessionNotFound):
        await found.tell(CancelTurn(session_id=SESSION, user_id=mallory))
    assert found.runner.session.running is not None


async def test_a_session_is_opened_once_however_many_ask(bench: Make) -> None:
    found = bench()
    await found.host(PlayedModel(ANSWER))
    await found.submit()
    await found.ended()
    await found.hosts[-1]._leave(SESSION)
    found.store.calls.clear()
    await asyncio.gather(*(found.tell(OpenSession(session_id=SESSION)) for _ in range(10)))
    assert found.store.calls["open_session"] == 1


async def test_a_quiet_session_is_closed_and_gives_its_numbers_back(bench: Make) -> None:
    found = bench(idle_s=60)
    await found.host(PlayedModel(ANSWER, ANSWER))
    await found.submit()
    await found.ended()
    last = found.runner.stream.latest
    found.directory.clock.advance(61)
    found.hosts[-1]._lease._renewed_s += 61
    await found.hosts[-1]._upkeep.run_once()
    assert SESSION in found.hosts[-1]._runners
    await found.tell(Unfollow(session_ids=(SESSION,), gateway="gateway"))
    found.directory.clock.advance(61)
    found.hosts[-1]._lease._renewed_s += 61
    await found.hosts[-1]._upkeep.run_once()
    assert SESSION not in found.hosts[-1]._runners
    record = await found.real.get_session(SESSION)
    assert record is not None
    assert (record.owner_id, record.reserved_seq) == (None, last)
    assert (await found.submit("t2")).after == last
    await found.ended("t2")
    assert "rewind" not in [e.kind for e in await found.stored()]


async def test_a_drain_lets_turns_end_and_takes_no_more(bench: Make) -> None:
    found = bench()
    gate = await busy(found)
    draining = asyncio.ensure_future(found.tell(Drain(grace_s=60)))
    await eventually(lambda: found.hosts[-1]._draining, "the drain began")
    with pytest.raises(ServiceUnavailable):
        await found.submit("t2")
    gate.set()
    await draining
    assert await statuses(found, "t1") == ["succeeded"]
    assert not found.hosts[-1]._runners
    with pytest.raises(ServiceUnavailable):
        await found.tell(OpenSession(session_id=SESSION))


async def test_a_drain_has_an_end(bench: Make) -> None:
    found = bench()
    await busy(found)
    await found.tell(Drain(grace_s=0.001))
    assert not found.hosts[-1]._runners
    assert await statuses(found, "t1") == ["running"]


async def test_without_a_renewal_everything_is_given_up_and_the_host_comes_back(bench: Make) -> None:
    found = bench(lease_stop_s=10)
    await busy(found)
    host = found.hosts[-1]
    before = host._lease.owner_id
    found.directory.clock.advance(11)
    await host._lease.watch_once()
    assert not host._runners
    await eventually(lambda: host._lease.owner_id not in ("", before), "it registered again")
    await eventually(lambda: not found.directory.held, "its permits are free")
    assert (await found.gauges())["leases_lost"] == 1


async def test_a_renewal_that_comes_too_late_brings_nothing_back(bench: Make) -> None:
    found = bench(lease_stop_s=10)
    await found.host(PlayedModel())
    host = found.hosts[-1]
    await host._lease.stop()
    gate = found.store.hold("renew_owner")
    renewing = asyncio.ensure_future(host._lease.renew_once())
    await found.store.at_gate.wait()
    found.directory.clock.advance(11)
    await host._lease.watch_once()
    gate.set()
    await renewing
    assert host._lease.owner_id == ""
    registered = found.directory.directory._placement.actors["host-1"]
    assert registered.owner_id != ""


async def test_a_deleted_session_is_dropped(bench: Make) -> None:
    found = bench()
    await busy(found)
    await found.real.delete_session(SESSION)
    await found.tell(DropSession(session_id=SESSION))
    assert not found.hosts[-1]._runners
    await eventually(lambda: not found.directory.held, "the permit is free")
    with pytest.raises(SessionNotFound):
        await found.tell(OpenSession(session_id=SESSION))


async def test_a_report_tells_what_is_held(bench: Make) -> None:
    found = bench()
    await busy(found)
    found.directory.directory.desk.permits.held.clear()
    await found.tell(Report())
    assert found.directory.held == {SESSION: "host-1"}


async def test_an_acceptance_that_failed_unforeseen_gives_the_session_up(bench: Make) -> None:
    found = bench()
    gate = await busy(found)
    found.store.fail("accept_turn", 1, RuntimeError("nobody foresaw this"))
    with pytest.raises(RuntimeError):
        await found.submit("t2")
    assert SESSION not in found.hosts[-1]._runners
    gate.set()
    await eventually(lambda: not found.directory.held, "the permit is free")


async def _unreachable(data: bytes) -> bytes:
    raise ServiceUnavailable("the directory is not there")


def _pass_on(found: SessionBench) -> Any:
    """The directory's messages reach the host."""

    async def answer(command: Any) -> Done:
        await found.tell(command)
        return Done()

    return answer
