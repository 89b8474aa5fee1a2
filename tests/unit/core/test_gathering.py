"""Calls that travel together: order, groups, whose error is whose."""

from __future__ import annotations

import asyncio

import pytest

from actors.errors import ServiceUnavailable, WunderError
from actors.gathering import Gathering
from storage.errors import Conflict, StorageUnavailable
from tests.support.facts import eventually


class Sender:
    """Doubles numbers; `poison` is refused, and everything fails with what is in `failures`."""

    def __init__(self, *, most: int = 500, apart: bool = False) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.poison: int | None = None
        self.failures: list[WunderError] = []
        self.gathering: Gathering[int, int] = Gathering(
            "test", self._send, most=most, apart=lambda error: apart and not error.retryable
        )

    async def _send(self, items: list[int]) -> list[int]:
        self.groups.append(list(items))
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.poison in items:
            raise Conflict("refused")
        return [2 * item for item in items]

    async def ask_all(self, *items: int) -> list[int | BaseException]:
        return await asyncio.gather(*map(self.gathering.ask, items), return_exceptions=True)

    async def while_busy(self, *items: int) -> list[asyncio.Task[int]]:
        """Ask for these while a call is under way."""
        self.gate.clear()
        asked = [asyncio.create_task(self.gathering.ask(0))]
        await eventually(lambda: self.groups == [[0]], "a call is under way")
        asked += [asyncio.create_task(self.gathering.ask(item)) for item in items]
        await eventually(lambda: len(self.gathering) == len(items), "the others gather")
        return asked


async def test_alone_a_call_waits_for_nobody() -> None:
    sender = Sender()
    assert await sender.gathering.ask(3) == 6
    assert await sender.gathering.ask(4) == 8
    assert sender.groups == [[3], [4]]


async def test_what_gathers_while_one_is_under_way_is_the_next_in_order() -> None:
    sender = Sender()
    asked = await sender.while_busy(1, 2, 3)
    sender.gate.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 6]
    assert sender.groups == [[0], [1, 2, 3]]
    assert sender.gathering.calls == 2


async def test_a_group_has_a_bound() -> None:
    sender = Sender(most=2)
    asked = await sender.while_busy(1, 2, 3)
    sender.gate.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 6]
    assert sender.groups == [[0], [1, 2], [3]]


async def test_an_error_is_everybodys() -> None:
    sender = Sender(apart=True)
    asked = await sender.while_busy(1, 2)
    sender.failures = [StorageUnavailable("away"), StorageUnavailable("still away")]
    sender.gate.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in found] == [StorageUnavailable] * 3
    assert sender.groups == [[0], [1, 2]]
    assert await sender.gathering.ask(5) == 10


async def test_a_poison_item_is_sent_apart() -> None:
    sender = Sender(apart=True)
    sender.poison = 2
    asked = await sender.while_busy(1, 2, 3)
    sender.gate.set()
    zero, one, two, three = await asyncio.gather(*asked, return_exceptions=True)
    assert (zero, one, three) == (0, 2, 6)
    assert isinstance(two, Conflict)
    assert sender.groups == [[0], [1, 2, 3], [1], [2], [3]]


async def test_without_a_rule_nobody_is_sent_apart() -> None:
    sender = Sender()
    sender.poison = 2
    asked = await sender.while_busy(1, 2)
    sender.gate.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in found] == [int, Conflict, Conflict]


async def test_who_has_left_is_no_trouble_to_the_others() -> None:
    sender = Sender()
    asked = await sender.while_busy(1, 2)
    asked[1].cancel()
    sender.gate.set()
    assert await asked[2] == 4


async def test_a_fault_of_ours_leaves_nobody_waiting() -> None:
    async def broken(items: list[int]) -> list[int]:
        raise RuntimeError("a fault")

    gathering: Gathering[int, int] = Gathering("test", broken)
    with pytest.raises(ServiceUnavailable):
        await gathering.ask(1)
    task = next((t for t in asyncio.all_tasks() if t.get_name() == "test"), None)
    if task is not None:
        await asyncio.wait([task])
    assert len(gathering) == 0
