from __future__ import annotations

import asyncio
from typing import Any

import pytest
from argon2.exceptions import HashingError

from actors.errors import ServiceUnavailable
from gateway.passwords import PasswordHasher
from gateway.settings import AuthSettings
from tests.support.edge import CountingHasher, Gate, edge_settings


@pytest.fixture
def settings() -> AuthSettings:
    return edge_settings(auth={"hash_workers": 2, "hash_queue": 3}).auth


@pytest.fixture
def hasher(settings: AuthSettings) -> CountingHasher:
    return CountingHasher(settings)


async def test_hash_and_verify(hasher: CountingHasher) -> None:
    stored = await hasher.hash("straße")
    assert stored.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert stored != await hasher.hash("straße")
    assert await hasher.verify(stored, "straße")
    assert not await hasher.verify(stored, "strasse")


async def test_composed_and_decomposed_characters_are_one_password(hasher: CountingHasher) -> None:
    assert await hasher.verify(await hasher.hash("caf\u00e9 au lait"), "cafe\u0301 au lait")


async def test_nobody_costs_one_verification_with_todays_parameters(hasher: CountingHasher) -> None:
    assert not await hasher.verify(None, "")
    assert hasher.verified == ["m=8,t=1,p=1"]


@pytest.mark.parametrize("stored", ["", "plain", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=8$x$y"])
async def test_an_unreadable_hash_matches_nothing(settings: AuthSettings, stored: str) -> None:
    hasher = PasswordHasher(settings)
    assert not await hasher.verify(stored, "")
    hasher.close()


@pytest.mark.parametrize(
    ("change", "outdated"),
    [({}, False), ({"hash_memory_kib": 16}, True), ({"hash_time_cost": 2}, True)],
)
async def test_needs_rehash_when_parameters_changed(
    hasher: CountingHasher, change: dict[str, Any], outdated: bool
) -> None:
    stored = await hasher.hash("x")
    assert PasswordHasher(edge_settings(auth=change).auth).needs_rehash(stored) is outdated


async def test_the_pool_takes_workers_plus_queue_and_no_more(hasher: CountingHasher) -> None:
    stored = await hasher.hash("x")
    gate = hasher.gate = Gate()
    waiting = [asyncio.create_task(hasher.verify(stored, "x")) for _ in range(5)]
    await gate.entered(2)
    assert (hasher.busy, hasher.queued) == (2, 3)
    with pytest.raises(ServiceUnavailable) as refused:
        await hasher.verify(stored, "x")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0
    gate.open()
    assert await asyncio.gather(*waiting) == [True] * 5
    assert await hasher.verify(stored, "x")


async def test_a_cancelled_wait_gives_its_place_back(hasher: CountingHasher) -> None:
    stored = await hasher.hash("x")
    gate = hasher.gate = Gate()
    waiting = [asyncio.create_task(hasher.verify(stored, "x")) for _ in range(5)]
    await gate.entered(2)
    assert (hasher.busy, hasher.queued) == (2, 3)
    for task in waiting[2:]:
        task.cancel()
    await asyncio.gather(*waiting[2:], return_exceptions=True)
    assert hasher.queued == 0
    gate.open()
    assert await asyncio.gather(*waiting[:2]) == [True] * 2


async def test_no_memory_to_hash_is_a_503(hasher: CountingHasher) -> None:
    def no_memory() -> None:
        raise HashingError("Memory allocation error")

    hasher.gate = no_memory
    with pytest.raises(ServiceUnavailable):
        await hasher.verify(None, "x")


async def test_a_closed_pool_is_a_503(hasher: CountingHasher) -> None:
    hasher.close()
    with pytest.raises(ServiceUnavailable):
        await hasher.hash("x")
    assert hasher.queued == 0
