"""How guessing passwords is slowed down without giving an attacker a way to lock anybody out.

    network bucket           all sign-ins of one network (auth.network_rate_per_minute, auth.network_burst)
    (account, network)       a bucket (auth.login_rate_per_minute, auth.login_burst), and a growing delay
                             after failures in a row: 1, 2, 4 ... times the bucket's interval, at most 60 s
    account under attack     many failures from anywhere: a network that the account has not signed in from
                             gets 3 free tries instead of `login_burst` before its delay grows

Everything is counted per network, so failures elsewhere never refuse the owner's first tries: with the right
password the first one succeeds. A network that the account signed in from is exempt from the account-wide
rule. An attempt is counted when it begins, so parallel guesses gain nothing. The same rules hold for names
that do not exist.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from actors.clock import Clock
from gateway.errors import RateLimited
from gateway.rate_limit import RecentMap, TokenBuckets
from gateway.settings import AuthSettings

_MAX_DELAY_S = 60.0
_FREE_UNDER_ATTACK = 3
_ATTACK_FAILURES = 20
_ATTACK_FAILURES_PER_MINUTE = 1.0
_STREAK_KEPT_S = 3600.0
_KNOWN_KEPT_S = 30 * 86_400.0
_KNOWN_PER_ACCOUNT = 16

Pair = tuple[str, str]


class _Streak(msgspec.Struct, frozen=True):
    """Failures in a row, and when the next try is allowed (monotonic seconds)."""

    failures: int = 0
    next_s: float = 0.0


class LoginThrottle:
    """`begin` before a password is checked (may raise `RateLimited`), then `succeeded` or `abandoned`."""

    def __init__(self, settings: AuthSettings, clock: Clock, *, max_entries: int = 65_536) -> None:
        self._clock = clock
        self._interval_s = 60 / settings.login_rate_per_minute
        self._burst = settings.login_burst
        self._networks = TokenBuckets(
            clock,
            rate_per_minute=settings.network_rate_per_minute,
            burst=settings.network_burst,
            max_entries=max_entries,
        )
        self._pairs = TokenBuckets(
            clock,
            rate_per_minute=settings.login_rate_per_minute,
            burst=settings.login_burst,
            max_entries=max_entries,
        )
        self._accounts = TokenBuckets(
            clock,
            rate_per_minute=_ATTACK_FAILURES_PER_MINUTE,
            burst=_ATTACK_FAILURES,
            max_entries=max_entries,
        )
        self._streaks: RecentMap[Pair, _Streak] = RecentMap(clock, keep_s=_STREAK_KEPT_S, max_entries=max_entries)
        self._known: RecentMap[str, OrderedDict[str, None]] = RecentMap(
            clock, keep_s=_KNOWN_KEPT_S, max_entries=max_entries
        )

    def entries(self) -> int:
        """How many networks, accounts and pairs are remembered."""
        maps = (self._networks, self._pairs, self._accounts, self._streaks, self._known)
        return sum(len(each) for each in maps)

    def sweep(self) -> None:
        """Forget what no longer limits anybody."""
        for each in (self._networks, self._pairs, self._accounts, self._streaks, self._known):
            each.sweep()

    def take_network(self, network: str) -> None:
        """Count a request that costs a hash against its network."""
        _refuse_for(self._networks.take(network))

    def begin(self, account: str, network: str) -> None:
        """Count an attempt as if it failed; `RateLimited` if it has to wait (then it is not counted)."""
        self.take_network(network)
        pair = (account, network)
        streak = self._streaks.get(pair) or _Streak()
        _refuse_for(streak.next_s - self._clock.monotonic_s())
        _refuse_for(self._pairs.take(_key(pair)))
        self._streaks.put(pair, self._failed_again(pair, streak))
        self._accounts.take(account)

    def succeeded(self, account: str, network: str) -> None:
        """The password was right: the streak ends and the network is known to the account."""
        self._streaks.pop((account, network))
        self._accounts.give_back(account)
        known = self._known.get(account) or OrderedDict()
        known[network] = None
        known.move_to_end(network)
        while len(known) > _KNOWN_PER_ACCOUNT:
            known.popitem(last=False)
        self._known.put(account, known)

    def abandoned(self, account: str, network: str) -> None:
        """The password was not checked after all (we were too busy): this was no failure."""
        self._accounts.give_back(account)
        streak = self._streaks.get((account, network))
        if streak is not None:
            self._streaks.put((account, network), _Streak(max(0, streak.failures - 1), 0.0))

    def _failed_again(self, pair: Pair, streak: _Streak) -> _Streak:
        failures = streak.failures + 1
        beyond = failures - self._free_tries(*pair)
        if beyond < 0:
            return _Streak(failures)
        delay_s = min(_MAX_DELAY_S, self._interval_s * 2 ** min(beyond, 16))
        return _Streak(failures, self._clock.monotonic_s() + delay_s)

    def _free_tries(self, account: str, network: str) -> int:
        under_attack = self._accounts.level(account) < 1
        if under_attack and network not in (self._known.get(account) or ()):
            return min(self._burst, _FREE_UNDER_ATTACK)
        return self._burst


def _key(pair: Pair) -> str:
    return f"{pair[1]} {pair[0]}"


def _refuse_for(wait_s: float) -> None:
    if wait_s > 0:
        raise RateLimited("too many attempts; wait before the next one", retry_after_s=wait_s)
