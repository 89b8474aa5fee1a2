"""Permits: how many sessions may run a turn now, in all and per user. Exact, in memory, first come first served.

Every step costs the same however many wait: waiters stand in one line per user, and only the heads of users who may
have another permit are looked at.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter, OrderedDict

import msgspec

from storage.records import SessionId, UserId


class Holder(msgspec.Struct, frozen=True):
    """Who holds, or waits for, a session's permit."""

    user_id: UserId
    actor: str


class _Place(msgspec.Struct):
    """A session's place in the queue; a smaller `number` came earlier."""

    number: int
    holder: Holder


class Permits:
    """A permit belongs to a session (which runs one turn at a time), so asking twice changes nothing."""

    def __init__(
        self, *, max_active: int, max_active_per_user: int, max_waiting: int, max_waiting_per_user: int
    ) -> None:
        self._max_active = max_active
        self._max_per_user = max_active_per_user
        self._max_waiting = max_waiting
        self._max_waiting_per_user = max_waiting_per_user
        self._places: OrderedDict[SessionId, _Place] = OrderedDict()
        self._lines: dict[UserId, OrderedDict[SessionId, _Place]] = {}
        self._heads: list[tuple[int, UserId]] = []
        self._numbers: list[int] = []
        self._next = 1
        self._active: Counter[UserId] = Counter()
        self._asked: dict[SessionId, int] = {}
        self.held: dict[SessionId, Holder] = {}
        self.clock = 0

    @property
    def waiting(self) -> dict[SessionId, Holder]:
        """Who waits, the longest waiting first."""
        return {session_id: place.holder for session_id, place in self._places.items()}

    @property
    def waiters(self) -> int:
        return len(self._places)

    def waits(self, session_id: SessionId) -> bool:
        return session_id in self._places

    def acquire(self, session_id: SessionId, holder: Holder) -> bool:
        """Take a permit if there is one to take; the new holder replaces the session's old one."""
        if session_id not in self.held and not self._free(holder.user_id):
            return False
        self.clock += 1
        self._asked[session_id] = self.clock
        self.hold(session_id, holder)
        return True

    def hold(self, session_id: SessionId, holder: Holder) -> None:
        """Record a permit without asking the limits (it was granted before a restart)."""
        self.leave(session_id)
        before = self.held.get(session_id)
        if before is not None:
            self._count(before.user_id, -1)
        self.held[session_id] = holder
        self._count(holder.user_id, 1)

    def wait(self, session_id: SessionId, holder: Holder) -> int | None:
        """Stand in the queue; the position (1 is next), or None if the queue is full."""
        place = self._places.get(session_id)
        if place is not None:
            place.holder = holder
            return self.position(session_id)
        line = self._lines.get(holder.user_id, ())
        if len(self._places) >= self._max_waiting or len(line) >= self._max_waiting_per_user:
            return None
        place = _Place(self._next, holder)
        self._next += 1
        self._places[session_id] = place
        self._lines.setdefault(holder.user_id, OrderedDict())[session_id] = place
        self._numbers.append(place.number)
        self._expose(holder.user_id)
        return len(self._places)

    def leave(self, session_id: SessionId, actor: str | None = None) -> None:
        """Leave the queue (only the actor that waits may, if named)."""
        place = self._places.get(session_id)
        if place is None or (actor is not None and place.holder.actor != actor):
            return
        user_id = place.holder.user_id
        del self._places[session_id]
        del self._numbers[bisect.bisect_left(self._numbers, place.number)]
        line = self._lines[user_id]
        del line[session_id]
        if line:
            self._expose(user_id)
        else:
            del self._lines[user_id]

    def release(self, session_id: SessionId, actor: str | None = None) -> bool:
        """Give a permit back (only the holder may, if named); whether there was one."""
        holder = self.held.get(session_id)
        if holder is None or (actor is not None and holder.actor != actor):
            return False
        del self.held[session_id]
        self._asked.pop(session_id, None)
        self._count(holder.user_id, -1)
        self._expose(holder.user_id)
        return True

    def returned(self, session_id: SessionId, actor: str, before: int) -> None:
        """An actor gave back an idle session's permit when asked at `before`, unless it has asked anew since."""
        if self._asked.get(session_id, 0) <= before:
            self.release(session_id, actor)

    def grantable(self) -> list[tuple[SessionId, Holder]]:
        """Move waiters to holders as far as the limits allow; who was granted, in their order."""
        granted: list[tuple[SessionId, Holder]] = []
        while self._heads and len(self.held) < self._max_active:
            number, user_id = heapq.heappop(self._heads)
            line = self._lines.get(user_id)
            if not line or self._active[user_id] >= self._max_per_user:
                continue  # exposed again by the user's next release
            session_id, place = next(iter(line.items()))
            if place.number == number:
                self.hold(session_id, place.holder)
                granted.append((session_id, place.holder))
        return granted

    def of_actor(self, actor: str) -> tuple[list[SessionId], list[SessionId]]:
        """The sessions whose permits an actor holds, and those it waits for."""
        return (
            [s for s, h in self.held.items() if h.actor == actor],
            [s for s, place in self._places.items() if place.holder.actor == actor],
        )

    def refusal(self, user_id: UserId) -> str:
        """Why `acquire` said no."""
        return "user_limit" if self._active[user_id] >= self._max_per_user else "service_limit"

    def position(self, session_id: SessionId) -> int:
        """1 for who waits longest; 0 for who does not wait."""
        place = self._places.get(session_id)
        return 0 if place is None else bisect.bisect_left(self._numbers, place.number) + 1

    def _expose(self, user_id: UserId) -> None:
        """Let the user's longest waiting session be found (an entry that is not the head any more is passed over)."""
        line = self._lines.get(user_id)
        if line:
            heapq.heappush(self._heads, (next(iter(line.values())).number, user_id))
        if len(self._heads) > 2 * len(self._places) + 64:
            self._heads = [(next(iter(line.values())).number, user) for user, line in self._lines.items()]
            heapq.heapify(self._heads)

    def _count(self, user_id: UserId, change: int) -> None:
        self._active[user_id] += change
        if not self._active[user_id]:
            del self._active[user_id]

    def _free(self, user_id: UserId) -> bool:
        return len(self.held) < self._max_active and self._active[user_id] < self._max_per_user
