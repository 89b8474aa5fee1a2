"""Wunder in one process with Slack beside it: a gateway, a pool, an outbox, and a server that answers as Slack does."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from actors.clock import SystemClock
from actors.models.registry import Models
from actors.settings import LlmSettings
from gateway.settings import Settings
from storage.records import TaskRecord
from storage.store import AsyncStorageBackend
from tests.support.channel_requests import slack, slack_event
from tests.support.facts import eventually
from tests.support.local_cluster import LocalCluster, local_settings
from tests.support.provider_servers import ProviderServer
from tests.support.readers import KEY

SECRETS_KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


def slack_account(server: ProviderServer, **fields: Any) -> dict[str, Any]:
    return {
        "channel": "slack",
        "signing_secret": "slack-signing-secret",
        "bot_token": "xoxb-token",
        "base_url": f"{server.url}/slack",
        **fields,
    }


def channel_settings(folder: Path, server: ProviderServer, **account: Any) -> Settings:
    return local_settings(
        folder,
        channels={
            "accounts": {"team": slack_account(server, **account)},
            "allow_hosts": [f"127.0.0.1:{server.port}"],
            "outbox": {"poll_interval_ms": 200.0},
        },
        agent_queue={"poll_interval_ms": 200.0, "retry_base_ms": 1.0},
        security={"api_key": "test-api-key", "secrets_keys": [SECRETS_KEY]},
        sessions={"sweep_s": 0.2},
    )


class ChannelWorld:
    """What a test needs: messages in, calls out, tasks."""

    def __init__(self, cluster: LocalCluster, server: ProviderServer, http: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.server = server
        self.http = http
        self.clock = SystemClock()

    @property
    def store(self) -> AsyncStorageBackend:
        return next(store for name, store in self.cluster.stores.items() if name.startswith("gateway"))

    async def post(self, payload: dict[str, Any], *, account: str | None = "team") -> tuple[int, dict[str, Any]]:
        """A signed request, as Slack sends it."""
        signed = slack(json.dumps(payload).encode(), self.clock.now_us() // 1_000_000)
        return await self.raw(signed.body, dict(signed.headers), account=account)

    async def raw(
        self, body: bytes, headers: dict[str, str], *, account: str | None = "team", channel: str = "slack"
    ) -> tuple[int, dict[str, Any]]:
        path = f"/wunder/channel/{channel}/webhook" + (f"/{account}" if account else "")
        async with self.http.post(self.cluster.url + path, data=io.BytesIO(body), headers=headers) as response:
            return response.status, await response.json()

    async def say(self, text: str, ts: str = "17.1", **event: Any) -> None:
        """A message of a person, taken."""
        status, body = await self.post(slack_event(text=text, ts=ts, **event))
        assert status == 200, body

    async def admin(self, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
        url = f"{self.cluster.url}/wunder/admin/channels{path}"
        async with self.http.request(method, url, json=body, headers=KEY) as response:
            answer = await response.json()
            return response.status, answer.get("data", answer.get("error"))

    async def tasks(self) -> list[TaskRecord]:
        return await self.store.list_tasks(None, status=None, session_id=None, before=None, limit=100)

    async def ended(self, number: int = 1) -> list[TaskRecord]:
        """So many tasks, all over; oldest first."""
        found: list[TaskRecord] = []

        async def over() -> bool:
            found[:] = sorted(await self.tasks(), key=lambda task: task.created_us)
            return len(found) == number and all(task.finished_us is not None for task in found)

        await eventually(over, f"{number} tasks have ended")
        return found

    async def sent(self, number: int = 1) -> list[dict[str, Any]]:
        """So many messages that the provider was asked to show."""
        await eventually(lambda: len(self.server.calls) >= number, f"{number} messages are sent")
        return self.server.calls

    async def metric(self, result: str, channel: str = "slack") -> float:
        async with self.http.get(f"{self.cluster.url}/metrics") as response:
            text = await response.text()
        name = f'wunder_channel_messages_total{{channel="{channel}",result="{result}"}} '
        return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)


@contextlib.asynccontextmanager
async def channel_world(
    settings: Settings, server: ProviderServer, models: Callable[[LlmSettings], Models] = Models
) -> AsyncIterator[ChannelWorld]:
    """Everything running, and stopped at the end."""
    cluster = LocalCluster(settings, models)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.stop)
        await cluster.start(pools=1)
        await cluster.start_outbox()
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield ChannelWorld(cluster, server, http)
