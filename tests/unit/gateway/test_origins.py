from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.errors import PermissionDenied
from gateway.network import ClientNetworks
from gateway.origins import Origins
from gateway.settings import GatewaySettings, ServerSettings, Settings
from tests.support.edge import PASSWORD, Edge, edge_settings, running_edge
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers

LISTED = "https://app.example.org"


def _is_refused(host: str, origins: list[str], listens: str) -> bool:
    settings = Settings(server=ServerSettings(host=listens), gateway=GatewaySettings(allowed_origins=(LISTED,)))
    headers = CIMultiDict([("Host", host), *(("Origin", origin) for origin in origins)])
    try:
        Origins(settings, ClientNetworks()).check(make_mocked_request("GET", "/", headers=headers))
    except PermissionDenied:
        return True
    return False


@pytest.mark.parametrize(
    ("origin", "refused"),
    [
        (LISTED, False),
        ("http://wunder.example:18000", False),  # the page it serves itself
        ("https://wunder.example:18000", True),
        ("http://wunder.example", True),
        ("http://wunder.example:18001", True),
        ("http://sub.wunder.example:18000", True),
        ("null", True),
        ("", True),
        ("*", True),
        ("https://evil.example", True),
        ("http://app.example.org", True),
        ("https://app.example.org:443", True),
        ("https://app.example.org:8443", True),
        ("https://app.example.org/", True),
        ("https://app.example.org.evil.example", True),
        ("https://evil-app.example.org", True),
        ("https://xapp.example.org", True),
        ("https://app.example.org@evil.example", True),
        ("https://evil.example/https://app.example.org", True),
        ("HTTPS://APP.EXAMPLE.ORG", True),
        ("https://App.example.org", True),
        ("https://app.example.org https://evil.example", True),
        ("file://", True),
        ("chrome-extension://abcdef", True),
    ],
)
def test_an_origin_is_taken_exactly_or_not_at_all(origin: str, refused: bool) -> None:
    assert _is_refused("wunder.example:18000", [origin], "0.0.0.0") is refused  # noqa: S104


def test_no_origin_is_fine_and_two_are_not() -> None:
    assert not _is_refused("wunder.example", [], "0.0.0.0")  # noqa: S104
    assert _is_refused("wunder.example", [LISTED, LISTED], "0.0.0.0")  # noqa: S104


@pytest.mark.parametrize(
    ("host", "origin", "refused"),
    [
        ("127.0.0.1:18000", "http://127.0.0.1:18000", False),
        ("localhost:18000", "http://localhost:18000", False),
        ("[::1]:18000", "http://[::1]:18000", False),
        ("localhost:80", "http://localhost", False),
        ("rebound.evil.example:18000", "http://rebound.evil.example:18000", True),
        ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example", True),
        ("localhost.evil.example", "http://localhost.evil.example", True),
        ("", "http://", True),
    ],
)
def test_on_loopback_a_foreign_name_is_a_foreign_page(host: str, origin: str, refused: bool) -> None:
    assert _is_refused(host, [origin], "127.0.0.1") is refused


@pytest.fixture
async def edge(users: MemoryUsers, clock: ManualClock) -> AsyncIterator[Edge]:
    settings = edge_settings(gateway={"allowed_origins": (LISTED,)})
    async with running_edge(users, settings, clock) as running:
        yield running


async def test_a_foreign_page_cannot_post(edge: Edge) -> None:
    body = {"username": "ada", "password": PASSWORD}
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    status, answer = await edge.call("POST", "/wunder/auth/register", body, headers=headers)
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")
    assert edge.hasher.verified == []


async def test_cors_is_for_listed_origins(edge: Edge) -> None:
    preflight = {"Origin": LISTED, "Access-Control-Request-Method": "POST"}
    async with edge.client.options("/wunder/auth/login", headers=preflight) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == LISTED
        assert "authorization" in response.headers["Access-Control-Allow-Headers"]
    async with edge.client.get("/wunder/auth/me", headers={"Origin": LISTED}) as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == LISTED
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_cors_is_for_nobody_else(edge: Edge, origin: str) -> None:
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with edge.client.options("/wunder/auth/login", headers=preflight) as response:
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers
    async with edge.client.get("/wunder/auth/me", headers={"Origin": origin}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers
