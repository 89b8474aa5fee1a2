from __future__ import annotations

import pytest

from gateway.errors import RateLimited
from gateway.login_throttle import LoginThrottle
from gateway.settings import AuthSettings
from tests.support.manual_clock import ManualClock

ATTACKER = "203.0.113.5"
HOME = "198.51.100.1"
HOTEL = "192.0.2.9"


@pytest.fixture
def throttle(clock: ManualClock) -> LoginThrottle:
    return LoginThrottle(AuthSettings(), clock)


def _wait_s(throttle: LoginThrottle, account: str, network: str) -> float:
    """0 if the attempt (a failure) was allowed, else how long it has to wait."""
    try:
        throttle.begin(account, network)
    except RateLimited as refused:
        return refused.retry_after_s or 0.0
    return 0.0


def _attack(throttle: LoginThrottle, clock: ManualClock, networks: int, guesses: int) -> int:
    """Failures from many networks; how many were allowed."""
    allowed = 0
    for number in range(guesses):
        allowed += _wait_s(throttle, "ada", f"203.0.113.{number % networks}") == 0
        clock.advance(0.01)
    return allowed


def test_the_delay_grows_after_the_burst_up_to_a_minute(throttle: LoginThrottle, clock: ManualClock) -> None:
    for _ in range(10):
        assert _wait_s(throttle, "ada", ATTACKER) == 0
    delays = []
    for _ in range(8):
        delays.append(round(_wait_s(throttle, "ada", ATTACKER)))
        clock.advance(delays[-1])
        assert _wait_s(throttle, "ada", ATTACKER) == 0
    assert delays == [3, 6, 12, 24, 48, 60, 60, 60]


def test_one_network_gets_fewer_than_100_guesses_an_hour(throttle: LoginThrottle, clock: ManualClock) -> None:
    allowed = 0
    for _ in range(3600 * 10):
        allowed += _wait_s(throttle, "ada", ATTACKER) == 0
        clock.advance(0.1)
    assert allowed < 100


def test_asking_too_early_does_not_prolong_the_wait(throttle: LoginThrottle, clock: ManualClock) -> None:
    for _ in range(10):
        throttle.begin("ada", ATTACKER)
    for _ in range(29):
        clock.advance(0.1)
        assert _wait_s(throttle, "ada", ATTACKER) > 0
    clock.advance(0.1001)
    assert _wait_s(throttle, "ada", ATTACKER) == 0


def test_the_right_password_ends_the_streak(throttle: LoginThrottle, clock: ManualClock) -> None:
    for _ in range(4):
        for _ in range(9):
            throttle.begin("ada", HOME)
        throttle.succeeded("ada", HOME)
        clock.advance(60)


def test_another_account_on_the_same_network_is_not_delayed(throttle: LoginThrottle) -> None:
    for _ in range(12):
        _wait_s(throttle, "ada", ATTACKER)
    assert _wait_s(throttle, "bob", ATTACKER) == 0


def test_one_network_cannot_spray_over_many_accounts(throttle: LoginThrottle) -> None:
    allowed = sum(_wait_s(throttle, f"user{number}", ATTACKER) == 0 for number in range(500))
    assert allowed == AuthSettings().network_burst


def test_an_attacked_account_lets_its_owner_try_from_anywhere(throttle: LoginThrottle, clock: ManualClock) -> None:
    throttle.begin("ada", HOME)
    throttle.succeeded("ada", HOME)
    _attack(throttle, clock, networks=200, guesses=20_000)
    assert [_wait_s(throttle, "ada", HOME) for _ in range(10)] == [0] * 10
    assert [_wait_s(throttle, "ada", HOTEL) > 0 for _ in range(5)] == [False] * 3 + [True] * 2


def test_an_attacked_account_gives_unknown_networks_less(throttle: LoginThrottle, clock: ManualClock) -> None:
    assert _attack(throttle, clock, networks=200, guesses=20_000) < 200 * 10
    calm = LoginThrottle(AuthSettings(), clock)
    assert [_wait_s(calm, "ada", HOTEL) > 0 for _ in range(5)] == [False] * 5


def test_an_attempt_that_was_not_checked_is_no_failure(throttle: LoginThrottle, clock: ManualClock) -> None:
    for _ in range(30):
        throttle.begin("ada", HOME)
        throttle.abandoned("ada", HOME)
        clock.advance(3)
    assert _wait_s(throttle, "ada", HOME) == 0


def test_an_account_knows_a_bounded_number_of_networks(throttle: LoginThrottle, clock: ManualClock) -> None:
    for number in range(1000):
        throttle.succeeded("ada", f"2001:db8:0:{number:x}::/64")
    throttle.sweep()
    assert throttle.entries() == 1
    _attack(throttle, clock, networks=200, guesses=20_000)
    assert [_wait_s(throttle, "ada", "2001:db8:0:3e7::/64") > 0 for _ in range(5)] == [False] * 5
    assert [_wait_s(throttle, "ada", "2001:db8:0:1::/64") > 0 for _ in range(5)] == [False] * 3 + [True] * 2


def test_memory_is_bounded_and_empties(clock: ManualClock) -> None:
    throttle = LoginThrottle(AuthSettings(), clock, max_entries=100)
    for number in range(5000):
        _wait_s(throttle, f"user{number}", f"10.0.{number // 256}.{number % 256}")
    assert throttle.entries() <= 400
    clock.advance(86_400)
    throttle.sweep()
    assert throttle.entries() == 0
