"""What a session host does every second, and at its end.

Idle sessions leave memory, idle permits go back, what waits is poked; a drain lets turns finish and then leaves all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from actors.clock import Clock
from actors.errors import WunderError
from actors.replies import Returned
from actors.session_runner import SessionRunner
from actors.settings import SessionsSettings
from actors.turn_queue import TurnQueue
from storage.records import SessionId

_LEAVE_PARALLEL = 32
_KEEP_NO_PERMITS_S = 5.0
"""After a recall: longer than the directory's pause between two of them while somebody waits."""


class SessionUpkeep:
    """Looks after the open sessions of one host; `passivate` makes an idle one leave memory."""

    def __init__(
        self,
        runners: Mapping[SessionId, SessionRunner],
        settings: SessionsSettings,
        clock: Clock,
        passivate: Callable[[SessionId], Awaitable[None]],
    ) -> None:
        self._runners = runners
        self._settings = settings
        self._clock = clock
        self._passivate = passivate
        self._keep_none_until_s = 0.0

    def return_permits(self) -> Returned:
        """Others wait for permits: idle sessions have none any more, and keep none for a while."""
        self._keep_none_until_s = self._clock.monotonic_s() + _KEEP_NO_PERMITS_S
        for runner in self._runners.values():
            runner.turns.linger_s = 0.0
        return Returned(session_ids=tuple(s for s, runner in self._runners.items() if runner.turns.return_idle()))

    async def run_once(self) -> None:
        now_s = self._clock.monotonic_s()
        linger_s = 0.0 if now_s < self._keep_none_until_s else self._settings.permit_linger_s
        kept: list[TurnQueue] = []
        for session_id, runner in list(self._runners.items()):
            if self._runners.get(session_id) is not runner:
                continue
            turns, unused_s = runner.turns, now_s - runner.touched_s
            turns.linger_s = linger_s
            if runner.idle and unused_s > self._settings.idle_s:
                await self._passivate(session_id)
            elif turns.keeps_permit:
                if now_s - turns.idle_since_s > linger_s or unused_s > self._settings.idle_s:
                    kept.append(turns)
            elif runner.session.permit != "waiting":
                await runner.poke()
        await asyncio.gather(*(turns.give_back() for turns in kept), return_exceptions=True)


async def leave_all(session_ids: list[SessionId], leave: Callable[[SessionId], Awaitable[None]]) -> None:
    """Leave many at a time, so that the database is asked for groups."""
    limit = asyncio.Semaphore(_LEAVE_PARALLEL)

    async def leave_one(session_id: SessionId) -> None:
        async with limit:
            with contextlib.suppress(WunderError):
                await leave(session_id)

    await asyncio.gather(*(leave_one(session_id) for session_id in session_ids))


async def drain(
    open_here: Mapping[SessionId, SessionRunner], grace_s: float, leave: Callable[[SessionId], Awaitable[None]]
) -> None:
    """Let turns finish within `grace_s`, then leave every session; what still runs goes on elsewhere."""
    runners = dict(open_here)
    if runners:
        drains = [asyncio.create_task(runner.drain(), name="drain") for runner in runners.values()]
        _, pending = await asyncio.wait(drains, timeout=grace_s)
        for task in pending:
            task.cancel()
    for runner in runners.values():
        if runner.session.running is not None:
            # It is resumed by the session's next owner from its last committed round.
            runner.abandon("drain_grace_over")
    await leave_all([session_id for session_id in runners if session_id in open_here], leave)
