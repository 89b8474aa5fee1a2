"""Permits: how many sessions may run a turn now, in all and per user. Exact, in memory, first come first served."""

from __future__ import annotations

from collections import Counter, OrderedDict

import msgspec

from storage.records import SessionId, UserId


class Holder(msgspec.Struct, frozen=True):
    """Who holds, or waits for, a session's permit."""

    user_id: UserId
    actor: str


class Permits:
    """A permit belongs to a session (which runs one turn at a time), so asking twice changes nothing."""

    def __init__(
        self, *, max_active: int, max_active_per_user: int, max_waiting: int, max_waiting_per_user: int
    ) -> None:
        self._max_active = max_active
        self._max_per_user = max_active_per_user
        self._max_waiting = max_waiting
        self._max_waiting_per_user = max_waiting_per_user
        self.held: dict[SessionId, Holder] = {}
        self.waiting: OrderedDict[SessionId, Holder] = OrderedDict()
        self._active: Counter[UserId] = Counter()
        self._queued: Counter[UserId] = Counter()

    def acquire(self, session_id: SessionId, holder: Holder) -> bool:
        """Take a permit if there is one to take; the new holder replaces the session's old one."""
        if session_id in self.held:
            self.hold(session_id, holder)
            return True
        if not self._free(holder.user_id):
            return False
        self.leave(session_id)
        self.hold(session_id, holder)
        return True

    def hold(self, session_id: SessionId, holder: Holder) -> None:
        """Record a permit without asking the limits (it was granted before a restart)."""
        self.leave(session_id)
        before = self.held.get(session_id)
        if before is not None:
            self._count(self._active, before.user_id, -1)
        self.held[session_id] = holder
        self._count(self._active, holder.user_id, 1)

    def wait(self, session_id: SessionId, holder: Holder) -> int | None:
        """Stand in the queue; the position (1 is next), or None if the queue is full."""
        if session_id in self.waiting:
            self.waiting[session_id] = holder
            return self.position(session_id)
        if len(self.waiting) >= self._max_waiting or self._queued[holder.user_id] >= self._max_waiting_per_user:
            return None
        self.waiting[session_id] = holder
        self._count(self._queued, holder.user_id, 1)
        return len(self.waiting)

    def leave(self, session_id: SessionId) -> None:
        """Leave the queue."""
        holder = self.waiting.pop(session_id, None)
        if holder is not None:
            self._count(self._queued, holder.user_id, -1)

    def release(self, session_id: SessionId, actor: str | None = None) -> bool:
        """Give a permit back (only the holder may, if named); whether there was one."""
        holder = self.held.get(session_id)
        if holder is None or (actor is not None and holder.actor != actor):
            return False
        del self.held[session_id]
        self._count(self._active, holder.user_id, -1)
        return True

    def grantable(self) -> list[tuple[SessionId, Holder]]:
        """Move waiters to holders as far as the limits allow; who was granted, in their order."""
        granted: list[tuple[SessionId, Holder]] = []
        for session_id, holder in list(self.waiting.items()):
            if len(self.held) >= self._max_active:
                break
            if self._free(holder.user_id):
                self.leave(session_id)
                self.hold(session_id, holder)
                granted.append((session_id, holder))
        return granted

    def of_actor(self, actor: str) -> tuple[list[SessionId], list[SessionId]]:
        """The sessions whose permits an actor holds, and those it waits for."""
        return (
            [s for s, h in self.held.items() if h.actor == actor],
            [s for s, h in self.waiting.items() if h.actor == actor],
        )

    def refusal(self, user_id: UserId) -> str:
        """Why `acquire` said no."""
        return "user_limit" if self._active[user_id] >= self._max_per_user else "service_limit"

    def position(self, session_id: SessionId) -> int:
        for index, waiting in enumerate(self.waiting, start=1):
            if waiting == session_id:
                return index
        return 0

    def _free(self, user_id: UserId) -> bool:
        return len(self.held) < self._max_active and self._active[user_id] < self._max_per_user

    @staticmethod
    def _count(counter: Counter[UserId], user_id: UserId, change: int) -> None:
        counter[user_id] += change
        if counter[user_id] <= 0:
            del counter[user_id]
