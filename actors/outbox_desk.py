"""What the directory knows of outboxes: who they are, so that they can be woken, and that one has died."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from actors.background import Background
from actors.errors import WunderError
from actors.handles import Reach, tell
from actors.logs import log
from actors.messages import RegisterOutbox, Sweep, Wake
from storage.records import OwnerId

_TELL_TIMEOUT_S = 5.0


class OutboxDesk:
    """Outboxes by name, as they say themselves. `bury` ends the lease of one that is known to be dead."""

    def __init__(self, reach: Reach, background: Background, bury: Callable[[OwnerId], Awaitable[None]]) -> None:
        self._reach = reach
        self._background = background
        self._bury = bury
        self._waking: set[str] = set()
        self.known: dict[str, RegisterOutbox] = {}

    def register(self, command: RegisterOutbox) -> None:
        """Remember it, and watch it if it is new."""
        if command.outbox not in self.known:
            log.info("outbox_registered", outbox=command.outbox, node=command.node_id)
            self._background.start(self._watch(command.outbox), f"watch-{command.outbox}")
        self.known[command.outbox] = command

    def wake(self) -> None:
        """Something is to be sent: whoever can may look."""
        for name in self.known:
            if name not in self._waking:
                self._waking.add(name)
                self._background.start(self._wake(name), f"wake-{name}")

    async def _wake(self, name: str) -> None:
        self._waking.discard(name)  # who comes from here on is not sure to be seen by this call
        await self._tell(name, Wake())

    async def _watch(self, name: str) -> None:
        await self._reach.gone(name)
        gone = self.known.pop(name)
        log.warning("outbox_gone", outbox=name)
        await self._bury(gone.owner_id)
        for other in self.known:
            await self._tell(other, Sweep())

    async def _tell(self, name: str, command: Wake | Sweep) -> None:
        with contextlib.suppress(WunderError):
            await tell(self._reach.actor(name), command, timeout_s=_TELL_TIMEOUT_S)
