"""Permits of idle sessions: kept for a while, called back when others wait, asked for many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.errors import ServiceUnavailable
from actors.handles import DirectoryHandle
from actors.messages import Acquire, PermitCalls, Release, decode_command, encode
from actors.models.base import Completed
from actors.permits import Holder, Permits
from actors.placement import Node, Placement
from actors.replies import Permit, PermitAnswers, Returned
from storage.records import SessionId, UserId
from storage.store import AsyncStorageBackend
from tests.support.doubles import PlayedModel, deltas
from tests.support.facts import eventually
from tests.support.session_bench import SESSION, SessionBench

ANSWER = (*deltas("fine"), Completed("fine"))
Make = Callable[..., SessionBench]


@pytest.fixture
async def bench(store: AsyncStorageBackend) -> AsyncIterator[Make]:
    made: list[SessionBench] = []

    def build(**sessions: Any) -> SessionBench:
        made.append(SessionBench(store, **{"permit_linger_s": 5.0, **sessions}))
        return made[-1]

    yield build
    for found in made:
        await found.stop()


def recalls_reach(found: SessionBench) -> list[Returned]:
    """The directory's recalls reach the host; what it gave back."""
    returned: list[Returned] = []

    async def answer(_: Any) -> Returned:
        returned.append(found.hosts[-1]._upkeep.return_permits())
        return returned[-1]

    found.directory.reach.answers["host-1"] = answer
    return returned


async def test_the_next_turn_of_a_session_needs_no_call(bench: Make) -> None:
    found = bench()
    host = await found.host(PlayedModel(ANSWER, ANSWER))
    await found.submit("t1")
    await found.ended("t1")
    calls: list[bytes] = []
    real = host._directory.call

    async def counted(data: bytes) -> bytes:
        calls.append(data)
        return await real(data)

    host._directory.call = counted
    await found.submit("t2")
    await found.ended("t2")
    assert calls == []


async def test_an_idle_permit_goes_back_after_its_time(bench: Make) -> None:
    found = bench()
    host = await found.host(PlayedModel(ANSWER))
    await found.submit("t1")
    await found.ended("t1")
    await host._upkeep.run_once()
    assert found.directory.held == {SESSION: "host-1"}
    found.directory.clock.advance(5.1)
    host._lease._renewed_s += 5.1
    await host._upkeep.run_once()
    assert found.directory.held == {}


async def test_nobody_is_refused_for_an_idle_permit(bench: Make) -> None:
    found = bench(max_active=1)
    await found.host(PlayedModel(ANSWER))
    recalls_reach(found)
    await found.submit("t1")
    await found.ended("t1")
    await eventually(lambda: found.runner.turns.keeps_permit, "it is idle")
    assert (await found.directory.acquire("elsewhere", "other", wait=False)).granted
    assert found.directory.held == {"elsewhere": "other"}
    assert found.runner.session.permit == "none"


async def test_after_a_recall_a_host_keeps_none(bench: Make) -> None:
    found = bench(max_active=1)
    gate = asyncio.Event()
    await found.host(model := PlayedModel((*deltas("x"), gate, Completed("x"))))
    returned = recalls_reach(found)
    await found.submit("t1")
    await model.waiting.wait()
    assert not (await found.directory.acquire("elsewhere", "other", wait=False)).granted
    assert returned == [Returned(session_ids=())]
    gate.set()
    await found.ended("t1")
    await eventually(lambda: not found.directory.held, "it went back at once")


async def test_a_permit_that_was_asked_for_after_the_recall_stays() -> None:
    permits = Permits(max_active=1, max_active_per_user=1, max_waiting=1, max_waiting_per_user=1)
    session, holder = SessionId("s"), Holder(UserId("u"), "a")
    assert permits.acquire(session, holder)
    before = permits.clock
    assert permits.acquire(session, holder)
    permits.returned(session, "a", before)
    assert session in permits.held
    permits.returned(session, "a", permits.clock)
    assert not permits.held


async def test_calls_that_gather_travel_together_and_in_order() -> None:
    heard: list[PermitCalls] = []
    gate = asyncio.Event()

    async def directory(data: bytes) -> bytes:
        command = decode_command(data)
        assert isinstance(command, PermitCalls)
        heard.append(command)
        await gate.wait()
        return encode(
            PermitAnswers(
                permits=tuple(Permit(granted=True) if isinstance(c, Acquire) else None for c in command.calls)
            )
        )

    line = DirectoryHandle(directory)._permits
    session, user = SessionId("s"), UserId("u")
    asked = [asyncio.ensure_future(line.ask(Acquire(session_id=session, user_id=user, actor="a", wait=True)))]
    await eventually(lambda: heard, "the first is under way")
    asked += [
        asyncio.ensure_future(line.ask(command))
        for command in (
            Release(session_id=session, actor="a"),
            Acquire(session_id=session, user_id=user, actor="a", wait=True),
        )
    ]
    gate.set()
    assert await asyncio.gather(*asked) == [Permit(granted=True), None, Permit(granted=True)]
    assert [[type(call) for call in command.calls] for command in heard] == [[Acquire], [Release, Acquire]]


async def test_a_call_that_failed_fails_those_that_were_in_it() -> None:
    async def away(_: bytes) -> bytes:
        raise ServiceUnavailable("away")

    line = DirectoryHandle(away)._permits
    asked = [line.ask(Release(session_id=SessionId(f"s{n}"), actor="a")) for n in range(3)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ServiceUnavailable] * 3


async def test_a_node_that_starts_nothing_holds_nobody_up() -> None:
    now_s = 0.0
    placement = Placement(budget=2, spare=0, monotonic_s=lambda: now_s)
    placement.nodes = {"bad": Node("bad", 1.0)}
    assert placement.wanted(demand=1) == ["bad"]
    pause_s = placement.start_failed("bad")
    assert placement.wanted(demand=1) == []
    now_s += pause_s
    assert placement.wanted(demand=1) == ["bad"]
    assert placement.start_failed("bad") == 2 * pause_s
