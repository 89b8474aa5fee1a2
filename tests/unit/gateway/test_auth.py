"""Who is calling: every place a credential may be, the cache of tokens, and how tokens end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.auth import Auth, Principal
from gateway.credentials import Credential, hash_secret, new_secret
from gateway.errors import AuthRequired, PermissionDenied
from gateway.settings import Settings
from storage.errors import InvalidRequest, StorageUnavailable
from storage.records import TokenRecord, UserId, UserRecord
from tests.support.edge import Edge, edge_settings, running_edge
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


# -- where a credential may be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "path", "via"),
    [
        ({"Authorization": "Bearer {token}"}, "/whoami", "token"),
        ({"Authorization": "bearer  {token} "}, "/whoami", "token"),
        ({"Authorization": "Bearer {key}"}, "/whoami", "api_key"),
        ({"X-API-Key": "{key}"}, "/whoami", "api_key"),
        ({"Sec-WebSocket-Protocol": "wunder, wunder-auth.{token}"}, "/whoami", "token"),
        ({}, "/whoami?ticket={ticket}", "ticket"),
        ({"Authorization": "Basic YTpi"}, "/whoami", None),
        ({"Authorization": "Bearer"}, "/whoami", None),
        ({"Authorization": "Bearer "}, "/whoami", None),
        ({"Authorization": "{token}"}, "/whoami", None),
        ({"Authorization": "Bearer {token}x"}, "/whoami", None),
        ({"Authorization": "Bearer {key}x"}, "/whoami", None),
        ({"Authorization": "Bearer {ticket}"}, "/whoami", None),
        ({"Authorization": "Bearer wrong", "X-API-Key": "{key}"}, "/whoami", None),
        ({"X-API-Key": "{token}"}, "/whoami", None),
        ({"X-API-Key": ""}, "/whoami", None),
        ({"Sec-WebSocket-Protocol": "wunder"}, "/whoami", None),
        ({"Sec-WebSocket-Protocol": "wunder, wunder-auth.{key}"}, "/whoami", None),
        ({}, "/whoami?ticket={token}", None),
        ({}, "/whoami?ticket=", None),
        ({}, "/whoami?token={token}", None),
        ({}, "/whoami?access_token={token}", None),
        ({"Cookie": "token={token}; access_token={token}"}, "/whoami", None),
        ({}, "/whoami", None),
    ],
)
async def test_where_a_credential_may_be(edge: Edge, headers: dict[str, str], path: str, via: str | None) -> None:
    token = await edge.register("ada")
    _, answer = await edge.call("POST", "/wunder/auth/ticket", token=token)
    known = {"token": token, "key": API_KEY, "ticket": answer["data"]["ticket"]}
    sent = {name: value.format(**known) for name, value in headers.items()}
    status, answer = await edge.call("GET", path.format(**known), headers=sent)
    if via is None:
        assert (status, answer["error"]["code"]) == (401, "AUTH_REQUIRED")
        assert not any(secret in str(answer) for secret in known.values())
    else:
        assert (status, answer["data"]["via"]) == (200, via)


@pytest.fixture
async def lax(users: MemoryUsers, clock: ManualClock) -> AsyncIterator[Edge]:
    settings = edge_settings(security={"allow_query_token": True})
    async with running_edge(users, settings, clock) as running:
        yield running


async def test_a_token_in_the_query_only_if_the_setting_allows(lax: Edge) -> None:
    token = await lax.register("ada")
    assert (await lax.call("GET", f"/whoami?token={token}"))[0] == 200


@pytest.mark.parametrize("sent", ["", "anything", "wund_"])
async def test_without_an_api_key_in_the_settings_none_works(lax: Edge, sent: str) -> None:
    assert (await lax.call("GET", "/whoami", headers={"X-API-Key": sent}))[0] == 401


def test_secrets_are_256_bits_and_never_shown() -> None:
    secrets = {new_secret("wund_") for _ in range(1000)}
    assert len(secrets) == 1000
    assert {len(secret) for secret in secrets} == {48}
    assert "geheim" not in repr(Credential("bearer", "geheim"))


# -- the cache ---------------------------------------------------------------------------------------------


async def test_a_known_token_reads_nothing_until_it_is_revalidated(
    auth: Auth, users: MemoryUsers, clock: ManualClock
) -> None:
    token, _ = await auth.issue_token(ADA)
    await by_token(auth, token)
    users.reads = 0
    for _ in range(100):
        await by_token(auth, token)
    assert users.reads == 0
    clock.advance(60)
    await by_token(auth, token)
    assert users.reads == 1


async def test_many_at_once_look_a_token_up_once(auth: Auth, users: MemoryUsers) -> None:
    token, _ = await auth.issue_token(ADA)
    users.reads = 0
    await asyncio.gather(*(by_token(auth, token) for _ in range(50)))
    assert users.reads == 1


async def test_the_cache_is_bounded_and_swept(users: MemoryUsers, settings: Settings, clock: ManualClock) -> None:
    await users.create_user(ADA)
    auth = Auth(users, settings, clock, max_cached=10)
    for _ in range(50):
        token, _ = await auth.issue_token(ADA)
        await by_token(auth, token)
    assert auth.cached_tokens() == 10
    clock.advance(60)
    auth.sweep()
    assert auth.cached_tokens() == 0


async def test_what_cannot_be_a_token_is_not_looked_up(auth: Auth, users: MemoryUsers) -> None:
    users.reads = 0
    for secret in (
        "wund_",
        "wund_short",
        "wund_" + "!" * 43,
        "wtkt_" + "a" * 43,
        "x" * 10_000,
        "wund_" + "é" * 43,
    ):
        with pytest.raises(AuthRequired):
            await by_token(auth, secret)
    assert users.reads == 0


class _SlowUsers(MemoryUsers):
    """`find_token` answers when told to, with what it had read before."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def find_token(self, token_hash: str, now_us: int) -> tuple[TokenRecord, UserRecord] | None:
        found = await super().find_token(token_hash, now_us)
        self.asked.set()
        await self.may_answer.wait()
        return found


async def test_a_token_that_ends_while_it_is_looked_up_is_not_accepted(settings: Settings, clock: ManualClock) -> None:
    users = _SlowUsers()
    await users.create_user(ADA)
    auth = Auth(users, settings, clock)
    token, record = await auth.issue_token(ADA)
    callers = [asyncio.create_task(by_token(auth, token)) for _ in range(3)]
    await users.asked.wait()
    await auth.end_token(record.token_hash)
    users.may_answer.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AuthRequired] * 3
    assert auth.cached_tokens() == 0


async def test_a_caller_that_goes_away_does_not_take_the_others_along(settings: Settings, clock: ManualClock) -> None:
    users = _SlowUsers()
    await users.create_user(ADA)
    auth = Auth(users, settings, clock)
    token, _ = await auth.issue_token(ADA)
    first = asyncio.create_task(by_token(auth, token))
    await users.asked.wait()
    second = asyncio.create_task(by_token(auth, token))
    await asyncio.sleep(0)
    first.cancel()
    users.may_answer.set()
    assert (await second).username == "ada"
    with pytest.raises(asyncio.CancelledError):
        await first


# -- how tokens end ----------------------------------------------------------------------------------------


async def test_ending_a_token_tells_everybody_once(auth: Auth) -> None:
    everywhere: list[str] = []
    here: list[str] = []
    auth.on_token_ended(everywhere.append)
    auth.on_ended_here(here.append)
    token, record = await auth.issue_token(ADA)
    await by_token(auth, token)
    assert await auth.end_token(record.token_hash)
    assert not await auth.end_token(record.token_hash)
    auth.forget("ended on another node")
    assert everywhere == [record.token_hash] * 2 + ["ended on another node"]
    assert here == [record.token_hash] * 2
    with pytest.raises(AuthRequired):
        await by_token(auth, token)


async def test_a_listener_that_fails_does_not_stop_the_others(auth: Auth) -> None:
    told: list[str] = []

    def broken(_: str) -> None:
        raise RuntimeError

    auth.on_token_ended(broken)
    auth.on_token_ended(told.append)
    _, record = await auth.issue_token(ADA)
    await auth.end_token(record.token_hash)
    assert told == [record.token_hash]


async def test_a_changed_password_ends_the_other_tokens(auth: Auth, users: MemoryUsers) -> None:
    issued = [await auth.issue_token(ADA) for _ in range(3)]
    for token, _ in issued:
        await by_token(auth, token)
    ended = await auth.change_password(ADA.user_id, "new", keep=issued[0][1].token_hash)
    assert users.users[ADA.user_id].password_hash == "new"
    assert set(ended) == {record.token_hash for _, record in issued[1:]}
    assert (await by_token(auth, issued[0][0])).user_id == ADA.user_id
    with pytest.raises(AuthRequired):
        await by_token(auth, issued[1][0])


async def test_a_caller_that_leaves_does_not_keep_the_stolen_tokens_alive(
    settings: Settings, clock: ManualClock
) -> None:
    class Slow(MemoryUsers):
        """Changes passwords when told to."""

        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def change_password(self, user_id: UserId, password_hash: str, *, keep: str | None) -> list[str] | None:
            self.asked.set()
            await self.may_answer.wait()
            return await super().change_password(user_id, password_hash, keep=keep)

    users = Slow()
    await users.create_user(ADA)
    auth = Auth(users, settings, clock)
    token, record = await auth.issue_token(ADA)
    await by_token(auth, token)
    told: list[str] = []
    auth.on_token_ended(told.append)
    change = asyncio.create_task(auth.change_password(ADA.user_id, "new", keep=None))
    await users.asked.wait()
    change.cancel()
    await asyncio.sleep(0)
    users.may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await change
    assert told == [record.token_hash]
    with pytest.raises(AuthRequired):
        await by_token(auth, token)


async def test_revalidate_notices_the_end_on_another_node(auth: Auth, users: MemoryUsers, clock: ManualClock) -> None:
    token, record = await auth.issue_token(ADA)
    principal = await by_token(auth, token)
    assert await auth.revalidate(principal)
    await users.delete_token(record.token_hash)
    clock.advance(60)
    assert not await auth.revalidate(principal)


async def test_without_the_store_connections_live_on_until_the_token_expires(
    auth: Auth, users: MemoryUsers, clock: ManualClock, settings: Settings
) -> None:
    token, _ = await auth.issue_token(ADA)
    principal = await by_token(auth, token)
    users.down = True
    clock.advance(60)
    assert await auth.revalidate(principal)
    with pytest.raises(StorageUnavailable):
        await by_token(auth, token)
    clock.advance(settings.auth.token_ttl_s)
    assert not await auth.revalidate(principal)


async def test_a_ticket_for_a_token_that_ended_elsewhere_is_refused(edge: Edge) -> None:
    token = await edge.register("ada")
    await edge.call("GET", "/whoami", token=token)
    await edge.store.delete_token(hash_secret(token))
    status, answer = await edge.call("POST", "/wunder/auth/ticket", token=token)
    if status == 200:  # the double does not refuse it; then the ticket itself is worth nothing
        path = f"/whoami?ticket={answer['data']['ticket']}"
        edge.clock.advance(0)
        edge.auth.forget(hash_secret(token))
        status, _ = await edge.call("GET", path)
    assert status == 401
    assert (await edge.call("GET", "/whoami", token=token))[0] == 401


# -- for whom a caller acts --------------------------------------------------------------------------------


def principal(**fields: object) -> Principal:
    known = {"user_id": "u_ada", "username": "ada", "is_admin": False, "token_hash": "h", "via": "token"}
    return Principal(**(known | fields))  # type: ignore[arg-type]


KEY = {"user_id": "api_key", "is_admin": True, "token_hash": None, "via": "api_key"}


@pytest.mark.parametrize(
    ("fields", "requested", "expected"),
    [
        ({}, None, "u_ada"),
        ({}, "u_ada", "u_ada"),
        ({}, "u_bob", PermissionDenied),
        ({}, "", PermissionDenied),
        ({"is_admin": True}, "u_bob", PermissionDenied),
        ({"via": "ticket"}, "u_bob", PermissionDenied),
        (KEY, "u_bob", "u_bob"),
        (KEY, "crm:customer-7@example.org", "crm:customer-7@example.org"),
        (KEY, "x" * 128, "x" * 128),
        (KEY, None, InvalidRequest),
        (KEY, "", InvalidRequest),
        (KEY, "x" * 129, InvalidRequest),
        (KEY, "a b", InvalidRequest),
        (KEY, "a/b", InvalidRequest),
        (KEY, "a\n", InvalidRequest),
        (KEY, "ä", InvalidRequest),
    ],
)
async def test_for_whom_a_caller_acts(
    auth: Auth, fields: dict[str, object], requested: str | None, expected: str | type[Exception]
) -> None:
    if isinstance(expected, str):
        assert auth.acting_user(principal(**fields), requested) == expected
    else:
        with pytest.raises(expected):
            auth.acting_user(principal(**fields), requested)


def test_what_a_caller_may_see() -> None:
    assert principal().may_see(UserId("u_ada"))
    assert not principal().may_see(UserId("u_bob"))
    assert principal(is_admin=True).may_see(UserId("u_bob"))
    assert principal(**KEY).may_see(UserId("u_bob"))


async def test_admin_only(auth: Auth) -> None:
    auth.require_admin(principal(is_admin=True))
    with pytest.raises(PermissionDenied):
        auth.require_admin(principal())
