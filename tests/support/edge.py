"""A gateway app with sign-in only, on a real port, for tests of the HTTP edge."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.accounts import Accounts
from gateway.auth import AUTH, Auth
from gateway.http_auth import add_auth_routes
from gateway.http_common import CLOCK, SETTINGS, ok
from gateway.login_throttle import LoginThrottle
from gateway.middleware import add_middlewares
from gateway.password_rules import PasswordRules, load_common_passwords
from gateway.passwords import PasswordHasher
from gateway.settings import AuthSettings, GatewaySettings, SecuritySettings, ServerSettings, Settings
from storage.store import UserStorage
from tests.support.manual_clock import ManualClock

T = TypeVar("T")

PASSWORD = "a quiet green lamp"
CHEAP = {"hash_memory_kib": 8, "hash_time_cost": 1, "hash_parallelism": 1}
PROXIES = ("127.0.0.0/8", "::1")


def edge_settings(
    *,
    auth: dict[str, Any] | None = None,
    gateway: dict[str, Any] | None = None,
    security: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> Settings:
    """Settings with cheap hashes; the test client counts as a trusted proxy, so tests choose networks."""
    return Settings(
        auth=AuthSettings(**(CHEAP | (auth or {}))),
        gateway=GatewaySettings(**(gateway or {})),
        security=SecuritySettings(**(security or {})),
        server=ServerSettings(**({"trusted_proxies": PROXIES} | (server or {}))),
    )


class Gate:
    """Holds hashing threads until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self) -> None:
        self._entered.release()
        self._opened.wait()

    async def entered(self, threads: int) -> None:
        """Wait until so many threads stand before the gate."""
        for _ in range(threads):
            await asyncio.to_thread(self._entered.acquire)

    def open(self) -> None:
        self._opened.set()


class CountingHasher(PasswordHasher):
    """Remembers the parameters of every verification; `gate` runs in the worker before each."""

    def __init__(self, settings: AuthSettings) -> None:
        super().__init__(settings)
        self.verified: list[str] = []
        self.submitted: asyncio.Queue[None] = asyncio.Queue()
        self.gate: Callable[[], object] = lambda: None

    async def _submit(self, work: Callable[[], T]) -> T:
        self.submitted.put_nowait(None)
        return await super()._submit(work)

    def _verify(self, password_hash: str, password: str) -> bool:
        self.gate()
        self.verified.append(password_hash.split("$")[3])
        return super()._verify(password_hash, password)


@dataclass
class Edge:
    """Everything of one gateway, and a client for it."""

    settings: Settings
    clock: ManualClock
    store: UserStorage
    auth: Auth
    hasher: CountingHasher
    throttle: LoginThrottle
    accounts: Accounts
    client: TestClient[web.Request, web.Application]
    observed: list[tuple[str, str, str, float]] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        network: str | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and decoded body."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if network is not None:
            sent["X-Forwarded-For"] = network
        data = None if body is None else msgspec.json.encode(body)
        async with self.client.request(method, path, data=data, headers=sent) as response:
            text = await response.read()
            return response.status, msgspec.json.decode(text) if text else {}

    async def register(self, username: str, password: str = PASSWORD, **options: Any) -> str:
        """A new account's token."""
        body = {"username": username, "password": password}
        status, answer = await self.call("POST", "/wunder/auth/register", body, **options)
        assert status == 200, answer
        return str(answer["data"]["access_token"])

    async def login(self, username: str, password: str = PASSWORD, **options: Any) -> tuple[int, dict[str, Any]]:
        body = {"username": username, "password": password}
        return await self.call("POST", "/wunder/auth/login", body, **options)


@asynccontextmanager
async def running_edge(
    store: UserStorage,
    settings: Settings,
    clock: ManualClock,
    *,
    registration_open: bool = True,
    add_routes: Callable[[web.Application], None] = lambda app: None,
) -> AsyncIterator[Edge]:
    """The app, wired as the gateway wires it, listening on a free port."""
    auth = Auth(store, settings, clock)
    hasher = CountingHasher(settings.auth)
    throttle = LoginThrottle(settings.auth, clock)
    rules = PasswordRules(min_length=settings.auth.password_min_length, common=load_common_passwords())
    accounts = Accounts(
        store=store,
        auth=auth,
        hasher=hasher,
        throttle=throttle,
        rules=rules,
        clock=clock,
        registration_open=registration_open,
    )
    observed: list[tuple[str, str, str, float]] = []
    app = web.Application()
    app[SETTINGS] = settings
    app[CLOCK] = clock
    app[AUTH] = auth
    add_middlewares(app, lambda *request: observed.append(request))
    add_auth_routes(app, auth, accounts)
    app.router.add_route("*", "/whoami", _whoami)
    add_routes(app)
    server = TestServer(app)
    await server.start_server(lingering_time=0.05)
    client = TestClient(server)
    try:
        yield Edge(settings, clock, store, auth, hasher, throttle, accounts, client, observed)
    finally:
        await client.close()
        hasher.close()


async def _whoami(request: web.Request) -> web.Response:
    principal = await request.app[AUTH].authenticate(request)
    return ok({"user_id": principal.user_id, "via": principal.via, "is_admin": principal.is_admin})
