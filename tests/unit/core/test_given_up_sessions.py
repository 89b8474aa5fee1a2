"""What a live owner has given up is taken up again: nothing that was accepted waits for a client to call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.errors import StorageUnavailable
from actors.messages import Drain, OpenSession, Sweep
from actors.models.base import Completed
from storage.errors import StorageError
from storage.records import TurnId
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
        made.append(SessionBench(store, **sessions))
        return made[-1]

    yield build
    for found in made:
        await found.stop()


async def orphaned(found: SessionBench) -> bool:
    return await found.real.orphaned_sessions(limit=10, now_us=2**60) == [SESSION]


async def succeeded(found: SessionBench, turn: str) -> None:
    async def recorded() -> bool:
        task = await found.real.get_task(TurnId(turn))
        return task is not None and task.status == "succeeded"

    await eventually(recorded, f"{turn} succeeded")


async def crashed_in_a_turn(found: SessionBench, *more: Any) -> None:
    """A turn runs when its host dies; a second host is there."""
    await found.host(first := PlayedModel((*deltas("x"), asyncio.Event(), Completed("x"))))
    await found.submit("t1")
    await first.waiting.wait()
    await found.crash()
    await found.host(PlayedModel(ANSWER), *more)


async def test_a_turn_that_could_not_be_resumed_is_resumed_later(bench: Make) -> None:
    found = bench()
    await crashed_in_a_turn(found)
    found.store.fail("resume_turn")
    await found.tell(OpenSession(session_id=SESSION))
    await eventually(lambda: orphaned(found), "the sweep can find it")
    assert found.directory.reach.heard("janitor", Sweep)
    await found.tell(OpenSession(session_id=SESSION))
    await succeeded(found, "t1")


async def test_a_session_whose_opening_had_no_answer_is_found_again(bench: Make) -> None:
    found = bench()
    await crashed_in_a_turn(found)
    real = found.store._store.open_session

    async def unheard(*args: Any, **kwargs: Any) -> Any:
        await real(*args, **kwargs)
        raise StorageUnavailable("the answer was lost")

    setattr(found.store, "open_session", unheard)  # noqa: B010
    with pytest.raises(StorageUnavailable):
        await found.tell(OpenSession(session_id=SESSION))
    delattr(found.store, "open_session")
    await eventually(lambda: orphaned(found), "the sweep can find it")


async def test_an_opening_without_an_answer_does_not_disturb_the_next_one(bench: Make) -> None:
    found = bench()
    await crashed_in_a_turn(found)
    found.store.fail("open_session")
    with pytest.raises(StorageUnavailable):
        await found.tell(OpenSession(session_id=SESSION))
    await found.tell(OpenSession(session_id=SESSION))
    await succeeded(found, "t1")
    await eventually(lambda: not len(found.hosts[-1]._disowner), "it was looked into")
    assert SESSION in found.hosts[-1]._runners


async def test_giving_up_is_told_when_the_database_is_back(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.disowner._RETRY_S", 0.001)
    found = bench()
    await crashed_in_a_turn(found)
    found.store.fail("resume_turn")
    found.store.fail("disown_session", times=3)
    await found.tell(OpenSession(session_id=SESSION))
    await eventually(lambda: orphaned(found), "the sweep can find it")
    assert found.store.calls["disown_session"] == 4


async def test_a_queued_turn_that_could_not_start_is_not_forgotten(bench: Make) -> None:
    found = bench()
    gate = asyncio.Event()
    await found.host(model := PlayedModel((*deltas("x"), gate, Completed("x")), ANSWER))
    await found.submit("t1")
    await model.waiting.wait()
    await found.submit("t2")
    found.store.fail("start_turn", error=StorageError("the disk has a bad sector"))
    gate.set()
    await eventually(lambda: orphaned(found), "the sweep can find it")
    await eventually(lambda: not found.directory.held, "it keeps no permit")
    await found.tell(OpenSession(session_id=SESSION))
    await succeeded(found, "t2")


async def test_a_session_left_in_a_turn_numbers_nothing_twice(bench: Make) -> None:
    """A turn that goes on elsewhere: no event of its old owner is above the numbers that were given back."""
    found = bench()
    speaking = asyncio.Event()
    await found.host(model := PlayedModel((*deltas("x"), speaking, *deltas("y", "z"), Completed("xyz"))))
    await found.submit("t1")
    await model.waiting.wait()
    gate = found.store.hold("close_session")
    leaving = asyncio.ensure_future(found.hosts[-1]._leave(SESSION))
    await found.store.at_gate.wait()
    speaking.set()
    for _ in range(20):
        await asyncio.sleep(0)
    gate.set()
    await leaving
    session = await found.real.get_session(SESSION)
    assert session is not None
    assert session.reserved_seq == max(e.seq for e in found.events)


async def test_a_turn_that_is_accepted_while_its_host_drains_starts_elsewhere(bench: Make) -> None:
    found = bench()
    await found.host(PlayedModel(ANSWER))
    gate = found.store.hold("accept_turn")
    submitting = asyncio.ensure_future(found.submit("t1"))
    await found.store.at_gate.wait()
    draining = asyncio.ensure_future(found.tell(Drain(grace_s=5.0)))
    await eventually(lambda: found.hosts[-1]._draining, "it drains")
    gate.set()
    assert (await submitting).status == "running"
    await draining
    assert await orphaned(found)
    assert await found.real.get_task(TurnId("t1")) is not None
    assert not any(e.kind == "turn_terminal" for e in found.events)


async def test_a_directory_that_does_not_answer_costs_no_lease(bench: Make) -> None:
    found = bench(lease_renew_s=0.001, lease_stop_s=10)
    await found.host(PlayedModel())
    host, never = found.hosts[-1], asyncio.Event()

    async def hung(_: bytes) -> bytes:
        await never.wait()
        return b""

    host._directory.call = hung
    before = found.store.calls.get("renew_owner", 0)
    await eventually(lambda: found.store.calls.get("renew_owner", 0) > before + 5, "renewals go on")
    found.directory.clock.advance(9)
    await eventually(lambda: host._lease._renewed_s == found.directory.clock.monotonic_s(), "it was renewed")
    found.directory.clock.advance(9)
    await host._lease.watch_once()
    assert host._lease.held
