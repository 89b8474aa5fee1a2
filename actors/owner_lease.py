"""An owner's lease: taken at the start, renewed by a loop that waits for nothing else, given up when it cannot be.

every lease_renew_s ──► renew_owner ──► ok
                           └─ lapsed, or no answer for lease_stop_s: `on_lost`, then back as a new owner
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from actors.background import Background
from actors.clock import Clock
from actors.errors import WunderError
from actors.logs import log
from actors.loop import Loop
from actors.settings import SessionsSettings
from storage.records import OwnerId
from storage.store import SessionStorage

NO_OWNER = OwnerId("")
_WATCH_S = 0.5


class OwnerLease:
    """The right of this process to its sessions. `on_taken` and `on_lost(reason)` are called on the loop."""

    def __init__(
        self,
        store: SessionStorage,
        clock: Clock,
        settings: SessionsSettings,
        node_id: str,
        *,
        on_taken: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._node_id = node_id
        self._on_taken = on_taken
        self._on_lost = on_lost
        self._renewed_s = 0.0
        self._background = Background()
        self._renewal = Loop("lease", self.renew_once, interval_s=settings.lease_renew_s, jitter=0.1, max_backoff_s=1.0)
        self._watch = Loop("lease-watch", self.watch_once, interval_s=_WATCH_S, jitter=0.0)
        self.owner_id = NO_OWNER
        self.lost = 0

    @property
    def held(self) -> bool:
        return self.owner_id != NO_OWNER

    async def take(self) -> None:
        """Become a new owner."""
        owner_id, started_s = OwnerId(self._clock.new_id("own")), self._clock.monotonic_s()
        await self._store.register_owner(owner_id, self._node_id, lease_s=self._settings.lease_s)
        self.owner_id, self._renewed_s = owner_id, started_s
        self._on_taken()

    def start(self) -> None:
        self._renewal.start()
        self._watch.start()

    async def stop(self) -> None:
        """Renew no more; `end` gives the lease back."""
        await self._watch.stop()
        await self._renewal.stop()
        await self._background.stop()

    async def end(self) -> None:
        with contextlib.suppress(WunderError):
            await self._store.expire_owner(self.owner_id)

    async def renew_once(self) -> None:
        if not self.held:
            await self.take()
            return
        owner_id, started_s = self.owner_id, self._clock.monotonic_s()
        renewed = await self._store.renew_owner(owner_id, lease_s=self._settings.lease_s)
        if owner_id != self.owner_id:
            return  # given up while the database was silent
        if renewed:
            self._renewed_s = started_s
        else:
            self._lose("lapsed")

    async def watch_once(self) -> None:
        """Stop by our own clock: the database may be the one that does not answer."""
        silent_s = self._clock.monotonic_s() - self._renewed_s
        if self.held and silent_s > self._settings.lease_stop_s:
            self._lose("no_renewal")

    def _lose(self, reason: str) -> None:
        log.error("lease_lost", owner=self.owner_id, reason=reason)
        self.lost += 1
        former, self.owner_id = self.owner_id, NO_OWNER
        self._on_lost(reason)
        self._background.start(self._expire(former), "end-lease")
        self._renewal.wake()

    async def _expire(self, owner_id: OwnerId) -> None:
        """Nothing is written under it any more, so others need not wait for it to lapse."""
        with contextlib.suppress(WunderError):
            await self._store.expire_owner(owner_id)
