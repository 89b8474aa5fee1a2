"""Accounts by the API: kept sealed, shown masked, tried, and at work within seconds."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from actors.channels.accounts import MASK
from gateway.cli.caller import run_action
from gateway.cli.channels import check_account, list_accounts
from tests.integration.channels.conftest import MakeWorld
from tests.support.channel_requests import slack, slack_event
from tests.support.channel_world import ChannelWorld, slack_account


async def put(scene: ChannelWorld, name: str = "api", **fields: Any) -> tuple[int, Any]:
    return await scene.admin("PUT", f"/{name}", slack_account(scene.server, **fields))


async def test_an_account_of_the_api_works(world: MakeWorld, tmp_path: Path) -> None:
    scene = await world()
    status, made = await put(scene)
    assert status == 200
    assert (made["signing_secret"], made["bot_token"], made["from_file"]) == (MASK, MASK, False)
    _, listed = await scene.admin("GET")
    assert [(item["account"], item["from_file"]) for item in listed["items"]] == [("api", False), ("team", True)]
    assert "xoxb-token" not in json.dumps(listed)
    assert "slack-signing-secret" not in json.dumps(listed)
    assert not _in_files(tmp_path, b"xoxb-token")
    status, _ = await scene.post(slack_event(text="echo hi", ts="1.0"), account="api")
    assert status == 200
    await scene.ended()
    assert (await scene.sent())[0]["text"] == "hi"
    assert (await scene.admin("DELETE", "/api"))[1] == {"deleted": True, "account": "api"}
    assert (await scene.post(slack_event(text="echo hi", ts="1.1"), account="api"))[0] == 404


async def test_a_masked_secret_stays_what_it_is(world: MakeWorld) -> None:
    scene = await world()
    await put(scene)
    status, made = await put(scene, signing_secret=MASK, bot_token="xoxb-new", enabled=False)
    assert (status, made["enabled"]) == (200, False)
    await put(scene, signing_secret=MASK, bot_token=MASK)
    body = json.dumps(slack_event(text="/help")).encode()
    headers = dict(slack(body, scene.clock.now_us() // 1_000_000).headers)
    assert (await scene.raw(body, headers, account="api"))[0] == 200
    await scene.sent()
    assert scene.server.requests[-1].headers["Authorization"] == "Bearer xoxb-new"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"bot_token": ""}, "bot_token"),
        ({"signing_secret": MASK}, "signing_secret"),
        ({"agent": "nobody"}, "agent_id"),
        ({"surprise": 1}, None),
        ({"channel": "pigeon"}, "channel"),
    ],
)
async def test_what_an_account_may_not_be(world: MakeWorld, fields: dict[str, Any], field: str | None) -> None:
    scene = await world()
    status, error = await put(scene, **fields)
    assert (status, error.get("field")) == (400, field)
    assert (await put(scene, "team"))[0] == 409
    assert (await scene.admin("DELETE", "/team"))[0] == 409
    assert (await scene.admin("DELETE", "/nobody"))[0] == 404


async def test_only_administrators_see_accounts(world: MakeWorld) -> None:
    scene = await world()
    url = f"{scene.cluster.url}/wunder/admin/channels"
    for method, path in (("GET", ""), ("PUT", "/x"), ("DELETE", "/team"), ("POST", "/team/test")):
        async with scene.http.request(method, url + path, json={}) as response:
            assert response.status == 401


async def test_accounts_are_tried(world: MakeWorld, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scene = await world()

    async def command(account: str | None, *, as_json: bool = False) -> tuple[int, str]:
        action = list_accounts if account is None else check_account
        options = argparse.Namespace(
            url=scene.cluster.url, json=as_json, account=account, action=action, topic="channels"
        )
        code = await asyncio.to_thread(run_action, options, {"WUNDER_API_KEY": "test-api-key"}, tmp_path)
        return code, capsys.readouterr().out.strip()

    assert await command(None) == (0, "team: slack (settings file)")
    code, out = await command("team")
    assert code == 0
    assert out.startswith("team: works")
    scene.server.mood = "permanent"
    assert await command("team") == (1, "team: does not work: channel_not_found channel_not_found")
    code, out = await command("team", as_json=True)
    assert (code, json.loads(out)["works"]) == (1, False)


def _in_files(folder: Path, text: bytes) -> bool:
    return any(text in file.read_bytes() for file in folder.glob("wunder.db*"))
