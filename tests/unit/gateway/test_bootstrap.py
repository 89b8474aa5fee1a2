from __future__ import annotations

import asyncio

import pytest

from gateway.bootstrap import FirstAdmin, bootstrap_admin
from gateway.password_rules import PasswordRules, load_common_passwords
from gateway.passwords import PasswordHasher
from storage.errors import InvalidRequest
from storage.store import UserStorage
from tests.support.edge import PASSWORD, edge_settings
from tests.support.manual_clock import ManualClock

HASHER = PasswordHasher(edge_settings().auth)
RULES = PasswordRules(min_length=8, common=load_common_passwords())


async def _bootstrap(store: UserStorage, clock: ManualClock, password: str = "") -> FirstAdmin | None:
    return await bootstrap_admin(store, HASHER, RULES, clock, configured_password=password)


async def test_a_fresh_start_makes_one_admin_and_tells_its_password_once(
    store: UserStorage, clock: ManualClock
) -> None:
    made = await _bootstrap(store, clock)
    assert made is not None
    assert made.password is not None
    assert len(made.password) >= 20
    user = await store.find_user(made.username)
    assert user is not None
    assert user.is_admin
    assert await HASHER.verify(user.password_hash, made.password)
    assert await _bootstrap(store, clock) is None


async def test_a_configured_password_is_used_and_not_given_back(store: UserStorage, clock: ManualClock) -> None:
    assert await _bootstrap(store, clock, PASSWORD) == FirstAdmin("admin", None)
    user = await store.find_user("admin")
    assert user is not None
    assert await HASHER.verify(user.password_hash, PASSWORD)
    assert await _bootstrap(store, clock, "another quiet lamp") is None
    unchanged = await store.find_user("admin")
    assert unchanged == user


async def test_a_weak_configured_password_stops_the_start(store: UserStorage, clock: ManualClock) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await _bootstrap(store, clock, "password")
    assert refused.value.field == "security.bootstrap_admin_password"
    assert not await store.has_admin()


async def test_of_processes_that_start_at_once_one_makes_the_admin(store: UserStorage, clock: ManualClock) -> None:
    made = await asyncio.gather(*(_bootstrap(store, clock) for _ in range(6)))
    assert len([each for each in made if each is not None]) == 1
