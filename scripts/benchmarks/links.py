"""A client's connections and its turns over them, whatever the transport."""

from __future__ import annotations

import asyncio
import itertools
from typing import Protocol

from scripts.benchmarks.event_streams import EventStreamClient, stream_events
from scripts.benchmarks.plan import Plan, Script
from scripts.benchmarks.readings import Checked, Reading, check
from scripts.benchmarks.sockets import Socket, socket_events

_USERS = 50
_WARM_TRIES = 3
_WARM_UP = Script(deltas=2)


class Link(Protocol):
    """One connection."""

    def start(self, reading: Reading, user_id: str) -> None: ...
    def cancel(self, reading: Reading) -> None: ...
    def close(self) -> None: ...


class Player:
    """One session on a connection; plays one turn after another."""

    def __init__(self, number: int, link: Link) -> None:
        self.link = link
        self.session_id: str | None = None
        self._number = number
        self._turns = itertools.count(1)

    def start(self, script: Script) -> Reading:
        reading = Reading(f"s{self._number}-{next(self._turns)}", script, self.session_id)
        self.link.start(reading, f"bench-{self._number % _USERS}")
        return reading

    async def play(self, script: Script, timeout_s: float) -> Reading:
        """A turn from start to end; a turn that takes too long is a failed reading, not an exception."""
        reading = self.start(script)
        await wait(reading, timeout_s)
        return reading


async def wait(reading: Reading, timeout_s: float) -> None:
    """Wait for the end of a turn; being late is one of its problems."""
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(reading.done)
    except TimeoutError:
        reading.end(f"not ended after {timeout_s:g} s")


def understand(reading: Reading, plan: Plan) -> Checked:
    """A finished reading, checked."""
    return check(reading, socket_events(reading) if plan.transport == "ws" else stream_events(reading))


async def open_players(plan: Plan, count: int) -> list[Player]:
    """Connections (few at once) and, on each, one session that has already had a turn."""
    players: list[Player] = []
    links = -(-count // plan.multiplex)
    opener = Socket.open if plan.transport == "ws" else EventStreamClient.open
    for first in range(0, links, 32):
        opened = await asyncio.gather(*(opener(plan) for _ in range(first, min(links, first + 32))))
        for link in opened:
            room = min(plan.multiplex, count - len(players))
            players.extend(Player(len(players) + i, link) for i in range(room))
    gate = asyncio.Semaphore(plan.warm_at_once)

    async def warm(player: Player) -> None:
        async with gate:
            await _warm_up(player, plan)

    async with asyncio.TaskGroup() as group:
        for player in players:
            group.create_task(warm(player))
    return players


async def _warm_up(player: Player, plan: Plan) -> None:
    problems: list[str] = []
    for _ in range(_WARM_TRIES):
        reading = await player.play(_WARM_UP, plan.timeout_s)
        problems = understand(reading, plan).problems
        if not problems:
            player.session_id = reading.session_id
            return
        await asyncio.sleep(1.0)
    raise RuntimeError(f"warm-up failed {_WARM_TRIES} times: {'; '.join(problems)}")
