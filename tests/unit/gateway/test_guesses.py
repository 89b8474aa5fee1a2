"""Guessing credentials: what it costs a network, and whom it does not harm."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.auth import Auth, Principal
from gateway.credentials import new_secret
from gateway.errors import AuthRequired, RateLimited
from gateway.settings import Settings
from storage.errors import StorageUnavailable
from storage.records import TokenRecord, UserId, UserRecord
from tests.support.edge import edge_settings
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers

API_KEY = "k-0123456789abcdef"
ADA = UserRecord(user_id=UserId("u_ada"), username="ada", password_hash="x", created_us=1)


@pytest.fixture
def settings() -> Settings:
    return edge_settings(security={"api_key": API_KEY})


@pytest.fixture
async def auth(users: MemoryUsers, settings: Settings, clock: ManualClock) -> Auth:
    await users.create_user(ADA)
    return Auth(users, settings, clock)


async def by_token(auth: Auth, token: str) -> Principal:
    headers = {"Authorization": f"Bearer {token}"}
    return await auth.authenticate(make_mocked_request("GET", "/", headers=headers))


async def by_key(auth: Auth, key: str) -> Principal:
    return await auth.authenticate(make_mocked_request("GET", "/", headers={"X-API-Key": key}))


async def test_guessing_tokens_cannot_load_the_store(auth: Auth, users: MemoryUsers) -> None:
    token, _ = await auth.issue_token(ADA)
    await by_token(auth, token)
    users.reads = 0
    for _ in range(100):
        with pytest.raises(AuthRequired):
            await by_token(auth, new_secret("wund_"))
    for _ in range(100):
        with pytest.raises(RateLimited):
            await by_token(auth, new_secret("wund_"))
    assert users.reads == 100
    assert (await by_token(auth, token)).username == "ada"  # on the same network, and known


async def test_many_valid_tokens_of_one_network_may_come_at_once(
    users: MemoryUsers, settings: Settings, clock: ManualClock
) -> None:
    """After a restart every token is new to the gateway, and an office has one address."""

    class Patient(MemoryUsers):
        """Answers nobody before all have asked."""

        all_asked = asyncio.Barrier(300)

        async def find_token(self, token_hash: str, now_us: int) -> tuple[TokenRecord, UserRecord] | None:
            await self.all_asked.wait()
            return await super().find_token(token_hash, now_us)

    patient = Patient()
    await patient.create_user(ADA)
    auth = Auth(patient, settings, clock)
    tokens = [(await auth.issue_token(ADA))[0] for _ in range(300)]
    found = await asyncio.gather(*(by_token(auth, token) for token in tokens))
    assert {principal.user_id for principal in found} == {ADA.user_id}
    guesses = await asyncio.gather(*(by_token(auth, new_secret("wund_")) for _ in range(300)), return_exceptions=True)
    assert {type(guess) for guess in guesses} == {AuthRequired}  # all were under way before the first was wrong
    with pytest.raises(RateLimited) as refused:
        await by_token(auth, new_secret("wund_"))
    assert refused.value.retry_after_s == pytest.approx(101 / 5)


async def test_an_outage_of_the_database_costs_nobody_a_guess(auth: Auth, users: MemoryUsers) -> None:
    token, _ = await auth.issue_token(ADA)
    users.down = True
    for _ in range(200):
        with pytest.raises(StorageUnavailable):
            await by_token(auth, token)
    users.down = False
    assert (await by_token(auth, token)).username == "ada"


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
async def test_guessing_the_api_key_has_an_end(auth: Auth, clock: ManualClock, header: str) -> None:
    async def guess(key: str) -> Principal:
        value = key if header == "X-API-Key" else f"Bearer {key}"
        return await auth.authenticate(make_mocked_request("GET", "/", headers={header: value}))

    for number in range(100):
        with pytest.raises(AuthRequired):
            await guess(f"k-{number:016d}")
    for key in ("k-0000000000000100", API_KEY):  # not even the right one tells
        with pytest.raises(RateLimited):
            await guess(key)
    clock.advance(1)
    assert (await guess(API_KEY)).via == "api_key"


async def test_guesses_do_not_shut_out_who_has_the_key(auth: Auth) -> None:
    await by_key(auth, API_KEY)
    for _ in range(150):
        with pytest.raises((AuthRequired, RateLimited)):
            await by_key(auth, "wrong")
    assert (await by_key(auth, API_KEY)).via == "api_key"
