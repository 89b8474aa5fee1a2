"""Token buckets and last-used maps: bounded in memory, and emptied by their own use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from actors.clock import Clock

K = TypeVar("K")
V = TypeVar("V")

_SWEPT_PER_USE = 2


class RecentMap(Generic[K, V]):
    """At most `max_entries`; forgets what was not written for `keep_s`; each write sweeps a little."""

    def __init__(self, clock: Clock, *, keep_s: float, max_entries: int) -> None:
        self._clock = clock
        self._keep_s = keep_s
        self._max_entries = max_entries
        self._items: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> V | None:
        item = self._items.get(key)
        if item is None or self._is_old(item[0]):
            return None
        return item[1]

    def put(self, key: K, value: V) -> None:
        self._items[key] = (self._clock.monotonic_s(), value)
        self._items.move_to_end(key)
        while len(self._items) > self._max_entries:
            self._items.popitem(last=False)
        self.sweep(_SWEPT_PER_USE)

    def pop(self, key: K) -> V | None:
        item = self._items.pop(key, None)
        return None if item is None else item[1]

    def sweep(self, limit: int | None = None) -> None:
        """Forget old entries, oldest first, at most `limit` of them."""
        removed = 0
        while self._items and (limit is None or removed < limit):
            key, (written_s, _) = next(iter(self._items.items()))
            if not self._is_old(written_s):
                return
            del self._items[key]
            removed += 1

    def _is_old(self, written_s: float) -> bool:
        return self._clock.monotonic_s() - written_s >= self._keep_s


class Pace:
    """One sender's bucket: `take` says how far beyond its pace it is, also counting what was refused.

    Zero is within the pace; the debt is in parts of the burst: at 1 a whole burst was sent in vain.
    """

    def __init__(self, monotonic_s: Callable[[], float], *, rate_per_minute: float, burst: int) -> None:
        self._monotonic_s = monotonic_s
        self._rate_per_s = rate_per_minute / 60
        self._burst = float(burst)
        self._level = float(burst)
        self._at_s = monotonic_s()

    def take(self) -> float:
        """Count one message; the debt after it."""
        now_s = self._monotonic_s()
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._rate_per_s) - 1
        self._at_s = now_s
        return max(0.0, -self._level) / self._burst

    @property
    def wait_s(self) -> float:
        """How long until there is no debt."""
        return max(0.0, -self._level) / self._rate_per_s


class TokenBuckets:
    """A bucket per key: `burst` at once, then `rate_per_minute`. A full bucket is forgotten.

    `take` asks first and takes one if there is one. Where the price is known only afterwards, `wait_s` asks and
    `charge` takes: what was under way at once can leave a debt, of `max_debt` at most.
    """

    def __init__(
        self, clock: Clock, *, rate_per_minute: float, burst: int, max_debt: int = 0, max_entries: int = 65_536
    ) -> None:
        self._clock = clock
        self._rate_per_s = rate_per_minute / 60
        self._burst = float(burst)
        self._max_debt = float(max_debt)
        self._levels: RecentMap[str, tuple[float, float]] = RecentMap(
            clock, keep_s=(burst + max_debt) / self._rate_per_s, max_entries=max_entries
        )

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str) -> float:
        """Take one; 0.0 if there was one, else (nothing taken) the seconds until there is."""
        wait_s = self.wait_s(key)
        if not wait_s:
            self.charge(key)
        return wait_s

    def wait_s(self, key: str) -> float:
        """The seconds until there is one to take; 0.0 if there is."""
        return max(0.0, (1 - self.level(key)) / self._rate_per_s)

    def charge(self, key: str) -> None:
        """Take one whether or not there is one."""
        level = max(-self._max_debt, self.level(key) - 1)
        self._levels.put(key, (self._clock.monotonic_s(), level))

    def give_back(self, key: str) -> None:
        """Undo one `take`."""
        level = self.level(key) + 1
        if level >= self._burst:
            self._levels.pop(key)
        else:
            self._levels.put(key, (self._clock.monotonic_s(), level))

    def level(self, key: str) -> float:
        """How many are left now."""
        state = self._levels.get(key)
        if state is None:
            return self._burst
        since_s, level = state
        return min(self._burst, level + (self._clock.monotonic_s() - since_s) * self._rate_per_s)

    def sweep(self) -> None:
        """Forget every bucket that is full again."""
        self._levels.sweep()
