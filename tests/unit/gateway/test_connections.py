"""The open connections of a gateway: how many of whom, and that they end with their token."""

from __future__ import annotations

import pytest

from gateway.auth import Auth, Principal
from gateway.connections import Connections
from gateway.errors import RateLimited
from gateway.protocol import CloseCode
from gateway.settings import GatewaySettings
from storage.records import UserId, UserRecord
from tests.support.edge import edge_settings
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers

ADA = UserRecord(user_id=UserId("u_ada"), username="ada", password_hash="x", created_us=1)


class Opened:
    """A connection that remembers how it was closed."""

    kind = "sse"

    def __init__(self, principal: Principal, network: str = "192.0.2.1") -> None:
        self.principal = principal
        self.network = network
        self.codes: list[int] = []

    def close(self, code: int, reason: str) -> None:
        self.codes.append(code)

    def stalled_s(self) -> float:
        return 0.0


def somebody(user_id: str, token_hash: str | None = None) -> Principal:
    return Principal(user_id=UserId(user_id), username=user_id, is_admin=False, token_hash=token_hash, via="token")


@pytest.fixture
async def auth(users: MemoryUsers, clock: ManualClock) -> Auth:
    await users.create_user(ADA)
    return Auth(users, edge_settings(), clock)


async def test_one_address_cannot_take_every_place(auth: Auth) -> None:
    connections = Connections(GatewaySettings(max_connections_per_address=2), auth, revalidate_s=60)
    opened = [Opened(somebody(f"u{number}")) for number in range(2)]
    for connection in opened:
        connections.check_room(connection.principal, connection.network)
        connections.add(connection)
    with pytest.raises(RateLimited):
        connections.check_room(somebody("u2"), "192.0.2.1")
    connections.check_room(somebody("u2"), "192.0.2.2")
    connections.remove(opened[0])
    connections.check_room(somebody("u2"), "192.0.2.1")


async def test_a_token_that_ended_elsewhere_is_noticed_though_it_is_cached(
    auth: Auth, users: MemoryUsers, clock: ManualClock
) -> None:
    connections = Connections(GatewaySettings(), auth, revalidate_s=60)
    _, record = await auth.issue_token(ADA)
    principal = somebody("u_ada", record.token_hash)
    assert await auth.revalidate(principal)
    opened = [Opened(principal), Opened(principal), Opened(somebody("key"))]
    for connection in opened:
        connections.add(connection)
    users.reads = 0
    await connections._revalidate_all()
    assert [o.codes for o in opened] == [[], [], []]
    assert users.reads == 1
    await users.delete_token(record.token_hash)
    await connections._revalidate_all()
    assert [o.codes for o in opened] == [[CloseCode.TOKEN_ENDED], [CloseCode.TOKEN_ENDED], []]
    assert not await auth.revalidate(principal)


async def test_a_token_that_ended_elsewhere_passes_for_less_than_the_setting(
    auth: Auth, users: MemoryUsers, clock: ManualClock
) -> None:
    """Half of the time for the cache when a connection opens, less than half until the connection is looked at."""
    _, record = await auth.issue_token(ADA)
    principal = somebody("u_ada", record.token_hash)
    assert await auth.revalidate(principal)
    await users.delete_token(record.token_hash)
    clock.advance(30)
    assert not await auth.revalidate(principal)
    connections = Connections(GatewaySettings(), auth, revalidate_s=60)
    assert connections._revalidate._interval_s * (1 + connections._revalidate._jitter) <= 30


async def test_what_is_opened_while_its_token_ends_is_closed(auth: Auth, users: MemoryUsers) -> None:
    connections = Connections(GatewaySettings(), auth, revalidate_s=60)
    _, record = await auth.issue_token(ADA)
    opened = Opened(somebody("u_ada", record.token_hash))
    connections.add(opened)
    await connections.look_again(opened)
    assert opened.codes == []
    await auth.end_token(record.token_hash)
    await connections.look_again(opened)
    connections.drain()
    await connections.look_again(opened)
    assert opened.codes[-3:] == [CloseCode.TOKEN_ENDED, CloseCode.DRAINING, CloseCode.DRAINING]
