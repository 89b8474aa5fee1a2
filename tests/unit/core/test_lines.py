"""Outgoing lines: one call at a time, what gathers is one batch, overflow is said, a lost gateway is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors import lines
from actors.errors import ServiceUnavailable
from actors.lines import LineSet, OutgoingLine
from actors.messages import Batch
from actors.replies import Event
from storage.records import OwnerId, SessionId
from tests.support.doubles import FakeReach
from tests.support.facts import eventually

S = SessionId("s")


def event(seq: int, session_id: str = S, size: int = 10) -> Event:
    return Event(SessionId(session_id), 1, seq, seq, "t", "delta", b"x" * size)


class Gateway:
    """Where a line's batches arrive; each call waits at the gate."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()
        self.under_way = 0
        self.most = 0
        self.error: Exception | None = None

    async def send(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.called.set()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.under_way -= 1

    @property
    def seqs(self) -> list[list[int]]:
        return [[e.seq for e in batch.events] for batch in self.batches]


class Line(OutgoingLine):
    """A line to a fake gateway."""

    def __init__(self, gateway: Gateway, interval_s: float = 0, max_bytes: int = 10_000) -> None:
        self.lost = 0
        super().__init__(
            "actor",
            lambda: OwnerId("own"),
            gateway.send,
            interval_s=interval_s,
            max_bytes=max_bytes,
            on_lost=self._note,
        )

    def _note(self) -> None:
        self.lost += 1


@pytest.fixture
async def started() -> AsyncIterator[Any]:
    made: list[Line] = []

    def start(*args: Any, **kwargs: Any) -> Line:
        line = Line(*args, **kwargs)
        line.start()
        made.append(line)
        return line

    yield start
    for line in made:
        await line.stop()


async def test_the_first_event_goes_at_once(started: Any) -> None:
    gateway = Gateway()
    line = started(gateway, interval_s=1000)
    line.put(event(1))
    await gateway.called.wait()
    assert gateway.seqs == [[1]]
    assert gateway.batches[0].actor == "actor"
    assert gateway.batches[0].owner_id == "own"


async def test_one_call_is_under_way_and_what_gathers_is_one_batch(started: Any) -> None:
    gateway = Gateway()
    gateway.gate.clear()
    line = started(gateway)
    line.put(event(1))
    await gateway.called.wait()
    for seq in range(2, 6):
        line.put(event(seq))
        await asyncio.sleep(0)
    assert (gateway.seqs, line.depth) == ([[1]], 4)
    gateway.gate.set()
    await eventually(lambda: line.calls == 2, "the second batch was sent")
    assert (gateway.seqs, gateway.most, line.sent, line.depth) == ([[1], [2, 3, 4, 5]], 1, 5, 0)


async def test_after_a_call_a_line_rests_for_its_interval(started: Any) -> None:
    gateway = Gateway()
    line = started(gateway, interval_s=1000)
    line.put(event(1))
    await eventually(lambda: line.calls == 1, "the first batch was sent")
    line.put(event(2))
    for _ in range(20):
        await asyncio.sleep(0)
    assert gateway.seqs == [[1]]
    await line.flush()
    assert gateway.seqs == [[1], [2]]


async def test_the_last_flush_waits_for_the_call_that_is_under_way(started: Any) -> None:
    gateway = Gateway()
    gateway.gate.clear()
    line = started(gateway)
    line.put(event(1))
    await gateway.called.wait()
    line.put(event(2))
    flushing = asyncio.ensure_future(line.flush())
    for _ in range(5):
        await asyncio.sleep(0)
    assert gateway.seqs == [[1]]
    gateway.gate.set()
    await flushing
    assert gateway.most == 1
    assert [seq for batch in gateway.seqs for seq in batch] == [1, 2]


async def test_a_flush_without_news_sends_nothing_and_survives_a_dead_gateway() -> None:
    gateway = Gateway()
    line = Line(gateway)
    await line.flush()
    assert gateway.batches == []
    gateway.error = ServiceUnavailable("gone")
    line.put(event(1))
    await line.flush()
    assert line.lost == 0


async def test_a_line_that_gathers_too_much_cuts_and_says_whom(started: Any) -> None:
    gateway = Gateway()
    gateway.gate.clear()
    line = started(gateway, max_bytes=1000)
    line.put(event(1, "first"))
    await gateway.called.wait()
    for seq in range(2, 9):
        line.put(event(seq, "a" if seq % 2 else "b", size=100))
    gateway.gate.set()
    await eventually(lambda: line.calls == 2, "the second batch was sent")
    second = gateway.batches[1]
    assert set(second.resync) == {"a", "b"}
    assert sum(len(e.body) for e in second.events) <= 1000
    line.put(event(9, "a"))
    await eventually(lambda: line.calls == 3, "the third batch was sent")
    assert gateway.batches[2].resync == ()


async def test_a_session_that_left_is_told_with_its_last_events(started: Any) -> None:
    gateway = Gateway()
    line = started(gateway)
    line.sessions.add(S)
    line.put(event(1))
    line.drop(S)
    await eventually(lambda: line.calls == 1, "the batch was sent")
    assert (gateway.seqs, gateway.batches[0].dropped, line.sessions) == ([[1]], (S,), set())


async def test_a_silent_line_shows_that_it_lives(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "KEEPALIVE_S", 0.001)
    gateway = Gateway()
    started(gateway)
    await gateway.called.wait()
    assert gateway.seqs[0] == []


@pytest.mark.parametrize("error", [ServiceUnavailable("gone"), TypeError("a bug")])
async def test_a_line_whose_gateway_fails_is_lost_once(started: Any, error: Exception) -> None:
    gateway = Gateway()
    gateway.error = error
    line = started(gateway)
    line.put(event(1))
    await eventually(lambda: line.lost == 1, "the line is lost")
    line.put(event(2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(gateway.batches) == 1


async def test_a_set_of_lines_has_one_to_each_gateway_and_starts_anew_after_a_loss() -> None:
    reach, lost = FakeReach(), []
    found = LineSet(
        "actor", reach, lambda: OwnerId("own"), interval_s=0, max_bytes=10_000, on_lost=lambda *a: lost.append(a)
    )
    line = found.to("gateway-1")
    assert found.to("gateway-1") is line
    line.sessions.add(S)
    line.put(event(1))
    await eventually(lambda: found.calls == 1, "the batch was sent")
    reach.kill("gateway-1")
    line.put(event(2))
    await eventually(lambda: lost == [("gateway-1", {S})], "the line is lost")
    assert found.calls == 1
    assert found.to("gateway-1") is not line
    assert found.depth == 0
    await found.stop(flush=True)
