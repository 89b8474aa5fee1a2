"""What the tests of wrong requests share: a cluster, users with sessions, raw requests, and what is stored."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from tests.support.local_cluster import LocalCluster, local_cluster, local_settings

KEY = {"X-API-Key": "test-api-key"}
TABLES = ("users", "tokens", "tickets", "sessions", "messages", "events", "tasks", "schedules", "schedule_runs")
PASSWORD = "a quiet green lamp"


@dataclass(frozen=True)
class User:
    """Somebody who is signed in."""

    user_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True)
class Answered:
    """An HTTP answer. `error` is its error object, `{}` if it has none."""

    status: int
    body: Any
    headers: dict[str, str] = field(repr=False)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.body.get("error", {})) if isinstance(self.body, dict) else {}


@dataclass
class World:
    """A running cluster. `session_id` is Alice's, with one answered turn; Bob is somebody else."""

    cluster: LocalCluster
    http: aiohttp.ClientSession
    storage_url: str
    alice: User
    bob: User
    session_id: str

    @property
    def url(self) -> str:
        return self.cluster.url

    async def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answered:
        """Send bytes as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.request(method, self.url + path, data=data, headers=headers or KEY) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return Answered(response.status, json.loads(text) if is_json else text, dict(response.headers))

    async def stored(self) -> dict[str, int]:
        """How many rows each table has."""
        counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in TABLES)  # noqa: S608 - our names
        return dict(zip(TABLES, await self.row(f"SELECT {counts}"), strict=True))

    async def row(self, sql: str, *args: str) -> tuple[Any, ...]:
        """Run a statement past every layer of ours; its first row. Parameters are `$1`, `$2` and so on."""
        if self.storage_url.startswith("sqlite"):
            database = sqlite3.connect(self.storage_url.removeprefix("sqlite:///"), isolation_level=None)
            try:
                names = {str(number): value for number, value in enumerate(args, 1)}
                return tuple(database.execute(sql, names).fetchone() or ())
            finally:
                database.close()
        connection = await asyncpg.connect(self.storage_url)
        try:
            return tuple(await connection.fetchrow(sql, *args) or ())
        finally:
            await connection.close()

    async def register(self, name: str) -> User:
        answer = await self.call("POST", "/wunder/auth/register", {"username": name, "password": PASSWORD})
        assert answer.status == 200, answer
        data = answer.body["data"]
        return User(data["user"]["user_id"], data["access_token"])

    @asynccontextmanager
    async def socket(self, headers: dict[str, str] | None = None) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket that has seen `ready`."""
        async with self.http.ws_connect(
            f"{self.url}/wunder/ws",
            headers=headers or KEY,
            max_msg_size=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
        ) as socket:
            ready = await socket.receive_json()
            assert ready["type"] == "ready", ready
            yield socket


@asynccontextmanager
async def running_world(
    folder: Path, storage_url: str | None = None, **sections: dict[str, Any]
) -> AsyncIterator[World]:
    """A cluster with its users."""
    storage_url = storage_url or f"sqlite:///{folder}/wunder.db"
    sections.setdefault("llm", {"agents": {"helper": {}}})
    settings = local_settings(folder, storage_url, **sections)
    async with local_cluster(settings) as cluster, aiohttp.ClientSession() as http:
        nobody = User("", "")
        world = World(cluster, http, storage_url, nobody, nobody, "")
        world.alice, world.bob = await world.register("alice"), await world.register("bob")
        question = {"question": "echo hello", "stream": False}
        answer = await world.call("POST", "/wunder", question, world.alice.headers)
        assert answer.status == 200, answer
        world.session_id = answer.body["session_id"]
        yield world
