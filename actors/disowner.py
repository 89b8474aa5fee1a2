"""Sessions that a live owner has given up: the database is told, so that they are taken up again.

A session is given up when it is unknown what its last write did. Its row still names this process, whose lease goes
on, so nobody would look for it: the row is cleared (under the epoch it was given up with), and the sweep finds it.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.loop import Loop
from storage.records import Fence, OwnerId, SessionId
from storage.store import SessionStorage

_RETRY_S = 1.0


class Disowner:
    """`add` what was given up; `epoch` is None when it is unknown whether the session was opened at all."""

    def __init__(
        self,
        store: SessionStorage,
        owner_id: Callable[[], OwnerId],
        is_open: Callable[[SessionId], bool],
        on_disowned: Callable[[], None],
    ) -> None:
        self._store = store
        self._owner_id = owner_id
        self._is_open = is_open
        self._on_disowned = on_disowned
        self._given_up: dict[SessionId, int | None] = {}
        self._loop = Loop("disown", self.run_once, interval_s=_RETRY_S, max_backoff_s=2.0)

    def __len__(self) -> int:
        return len(self._given_up)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def add(self, session_id: SessionId, epoch: int | None) -> None:
        self._given_up[session_id] = epoch
        self._loop.wake()

    def forget_all(self) -> None:
        """The lease is gone, and with it everything that it protected."""
        self._given_up.clear()

    async def run_once(self) -> None:
        """Try each; a database that is away is tried again by the loop."""
        told = False
        for session_id, epoch in list(self._given_up.items()):
            known = epoch if epoch is not None else await self._epoch(session_id)
            if known is not None:
                told |= await self._store.disown_session(Fence(session_id, known))
            if self._given_up.get(session_id, 0) == epoch:
                del self._given_up[session_id]
        if told:
            self._on_disowned()

    async def _epoch(self, session_id: SessionId) -> int | None:
        """The epoch under which this process owns the session without knowing it."""
        record = await self._store.get_session(session_id)
        if record is None or record.owner_id != self._owner_id() or self._is_open(session_id):
            return None
        return record.epoch
