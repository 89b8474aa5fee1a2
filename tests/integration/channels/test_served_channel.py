"""The whole service on a real Ray: a message in, its answer out through the outbox; a gateway that is killed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp

from actors.clock import SystemClock
from tests.support.channel_requests import slack, slack_event
from tests.support.channel_world import slack_account
from tests.support.facts import eventually
from tests.support.provider_servers import ProviderServer
from tests.support.served import API_KEY, Served

TIMEOUT_S = 240.0


async def deliver(url: str, text: str, ts: str) -> int | None:
    """What Slack does; None if nobody answers."""
    now_s = SystemClock().now_us() // 1_000_000
    signed = slack(json.dumps(slack_event(text=text, ts=ts)).encode(), now_s)
    path = f"{url}/wunder/channel/slack/webhook/team"
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.post(path, data=signed.body, headers=dict(signed.headers)) as answer,
        ):
            return answer.status
    except aiohttp.ClientError:
        return None


async def test_a_message_and_its_answer(tmp_path: Path) -> None:
    async with ProviderServer().running() as server:
        channels = {
            "accounts": {"team": {**slack_account(server), "bot_token": "${CHANNEL_BOT_TOKEN:-xoxb-token}"}},
            "allow_hosts": [f"127.0.0.1:{server.port}"],
        }
        service = Served(tmp_path, f"sqlite:///{tmp_path}/data/wunder.db", {"channels": channels})
        try:
            await asyncio.to_thread(service.start)
            assert await deliver(service.url, "echo hello", "17.1") == 200
            await eventually(lambda: server.calls, "it is answered", 60)
            service.kill("Gateway")

            async def delivered() -> bool:
                return await deliver(service.url, "echo hello", "17.1") == 200

            await eventually(delivered, "another gateway is there", 60)
            assert await deliver(service.url, "echo again", "17.2") == 200
            await eventually(lambda: len(server.calls) >= 2, "the next one is answered", 60)
            assert [call["text"] for call in server.calls] == ["hello", "again"]
            assert await _account_works(service.url)
        finally:
            await asyncio.to_thread(service.stop)
        assert "xoxb-token" not in service.output
        assert "slack-signing-secret" not in service.output


async def _account_works(url: str) -> bool:
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as http,
        http.post(f"{url}/wunder/admin/channels/team/test") as answer,
    ):
        return bool((await answer.json())["data"]["works"])
