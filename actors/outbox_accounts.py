"""What an outbox knows of each account that it sends for: how many are under way, and whether it is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from actors.channels.retries import Trouble
from actors.models.breaker import Breaker


class Account:
    """One account of one channel. Times are monotonic seconds."""

    def __init__(self, limit: int, breaker: Breaker) -> None:
        self.in_flight = 0
        self.breaker = breaker
        self.paused_until_s = 0.0
        self._limit = limit

    def wait_s(self, now_s: float) -> float:
        """How long it is left alone from now; 0 if something may be sent."""
        return max(self.paused_until_s - now_s, self.breaker.open_for_s(now_s), 0.0)

    def free(self, now_s: float) -> int:
        """How many may be claimed now; one if it is tried after an outage."""
        if self.wait_s(now_s) > 0:
            return 0
        if self.breaker.is_open:
            return 0 if self.breaker.is_probing else 1
        return max(0, self._limit - self.in_flight)

    def started(self, now_s: float) -> None:
        """One is under way; if the account was left alone, it is the one that tries."""
        self.in_flight += 1
        self.breaker.wait_s(now_s)

    def ended(self, trouble: Trouble | None, now_s: float, *, retry_after_s: float | None = None) -> None:
        """An attempt ended with this trouble; None if it told nothing."""
        self.in_flight -= 1
        if trouble == "outage":
            self.breaker.failed(now_s)
        elif trouble is None:
            self.breaker.abandoned()
        else:
            self.breaker.succeeded()
        if trouble == "rate" and retry_after_s is not None:
            self.paused_until_s = max(self.paused_until_s, now_s + retry_after_s)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to claim now, and in how many seconds to look again (None: nobody waits for time to pass)."""

    claims: tuple[tuple[str, int], ...]
    again_s: float | None
    crowded: bool
    """Whether something due has to wait for a slot."""


class Accounts:
    """All accounts with something under way, or something held against them."""

    def __init__(self, make: Callable[[str], Account]) -> None:
        self._make = make
        self._accounts: dict[str, Account] = {}

    @property
    def open_breakers(self) -> dict[str, Account]:
        """Accounts that are left alone, by route."""
        return {route: account for route, account in self._accounts.items() if account.breaker.is_open}

    def get(self, route: str) -> Account:
        account = self._accounts.get(route)
        if account is None:
            account = self._accounts[route] = self._make(route)
        return account

    def plan(self, routes: Iterable[tuple[str, int]], *, room: int, now_us: int, now_s: float) -> Plan:
        """Share the free slots: first who has least under way. `routes` are (route, when its next is due)."""
        due: list[tuple[int, str, int]] = []
        waits: list[float] = []
        crowded = False
        for route, due_us in routes:
            account = self.get(route)
            wait_s = max((due_us - now_us) / 1e6, account.wait_s(now_s))
            if wait_s > 0:
                waits.append(wait_s)
            elif (free := account.free(now_s)) > 0:
                due.append((account.in_flight, route, free))
            else:
                crowded = True
        claims = []
        for _, route, free in sorted(due):
            if room <= 0:
                crowded = True
                break
            claims.append((route, min(free, room)))
            room -= min(free, room)
        return Plan(claims=tuple(claims), again_s=min(waits, default=None), crowded=crowded)

    def forget(self, routes: Iterable[str], now_s: float) -> None:
        """Keep what is under way, left alone, or among these routes."""
        kept = set(routes)
        self._accounts = {
            route: account
            for route, account in self._accounts.items()
            if route in kept or account.in_flight or account.breaker.is_open or account.wait_s(now_s) > 0
        }
