"""The whole service on Ray, as a user meets it: sign in, ask, stream, cancel, come back."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.support.facts import eventually
from tests.support.follower import Follower
from tests.support.served import API_KEY, Served

PASSWORD = "correct horse battery"


async def sign_up(served: Served, name: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/wunder/auth/register", json={"username": name, "password": PASSWORD}) as response,
    ):
        assert response.status == 200, await response.text()
        return str((await response.json())["data"]["access_token"])


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])["data"]))
    return found


async def test_a_user_signs_up_asks_and_finds_the_answer_in_the_transcript(served: Served) -> None:
    token = await sign_up(served, "ada")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
        async with client.post(f"{served.url}/wunder", json={"question": "calculate 6*7"}) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            events = events_of(await response.text())
        kinds = [kind for kind, _ in events]
        assert kinds[-2:] == ["final", "turn_terminal"]
        results = [data for kind, data in events if kind == "tool_result"]
        assert [r["ok"] for r in results] == [True]
        assert "42" in next(data["answer"] for kind, data in events if kind == "final")
        async with client.get(f"{served.url}/wunder/chat/sessions") as response:
            listed = (await response.json())["data"]
        assert listed["total"] == 1
        session_id = listed["items"][0]["session_id"]
        async with client.get(f"{served.url}/wunder/chat/sessions/{session_id}") as response:
            roles = [m["role"] for m in (await response.json())["data"]["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant"]


async def test_a_browser_opens_a_socket_with_a_ticket_once(served: Served) -> None:
    token = await sign_up(served, "grace")
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{served.url}/wunder/auth/ticket", headers=headers) as response:
            ticket = (await response.json())["data"]["ticket"]
        url = f"{served.url}/wunder/chat/ws?ticket={ticket}"
        async with client.ws_connect(url) as socket:
            assert json.loads((await socket.receive()).data)["type"] == "ready"
            await socket.send_json({"type": "start", "request_id": "1", "payload": {"content": "echo hello"}})
            assert json.loads((await socket.receive()).data)["type"] == "ack"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(url)
        assert refused.value.status == 401


async def test_a_cancel_is_answered_and_final(served: Served) -> None:
    async with Follower(served.url, API_KEY, "canceller") as follower:
        await follower.start("count to 5000")
        await follower.until(lambda e: e["event"] == "llm_output_delta")
        await follower.cancel()
        assert await follower.finish() == "cancelled"
        assert follower.count("turn_terminal") == 1


async def test_an_idle_session_leaves_memory_and_goes_on_without_a_jump(served: Served) -> None:
    async with Follower(served.url, API_KEY, "idler") as follower:
        await follower.start("count to 3")
        assert await follower.finish() == "succeeded"

        async def passivated() -> bool:
            return await open_sessions(served) == 0

        await eventually(passivated, "every session has left memory", timeout_s=30)
        await follower.start("count to 4")
        assert await follower.finish() == "succeeded"
        assert follower.count("rewind") == 0
        assert follower.count("gap") == 0


async def open_sessions(served: Served) -> int:
    summary = await admin(served, "/wunder/admin/summary")
    return int(sum(actor["sessions_open"] for actor in summary["actors"].values()))


async def admin(served: Served, path: str) -> Any:
    headers = {"X-API-Key": API_KEY}
    async with aiohttp.ClientSession(headers=headers) as client, client.get(served.url + path) as response:
        assert response.status == 200, await response.text()
        return (await response.json())["data"]


async def test_sessions_get_actors_of_their_own_while_the_budget_lasts(served: Served) -> None:
    async def ask(number: int) -> None:
        async with Follower(served.url, API_KEY, f"placed-{number}") as follower:
            await follower.start("count to 200")
            await follower.finish()

    await asyncio.gather(*(ask(number) for number in range(6)))
    summary = await admin(served, "/wunder/admin/summary")
    assert len(summary["actors"]) == 3, "three is the budget"
    assert len(served.processes("SessionActor")) == 3


async def test_the_terminal_client_streams_an_answer(served: Served, tmp_path: Path) -> None:
    token = await sign_up(served, "linus")
    environment = {**os.environ, "WUNDER_TOKEN": token, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "gateway", "chat", "--url", served.url, "--message", "calculate 6*7"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "42" in done.stdout
    status = [sys.executable, "-m", "gateway", "status", "--url", served.url]
    environment = {**environment, "WUNDER_API_KEY": API_KEY}
    shown = await asyncio.to_thread(
        subprocess.run, status, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "session-actor-" in shown.stdout


async def test_probes_metrics_and_openapi_answer(served: Served) -> None:
    async with aiohttp.ClientSession() as client:
        for path in ("/healthz", "/readyz", "/openapi.json", "/metrics"):
            async with client.get(served.url + path) as response:
                assert response.status == 200, path
                text = await response.text()
        assert "wunder_request_seconds_bucket" in text
        assert 'number="turns_running"' in text


async def test_everything_listens_on_loopback_and_secrets_are_private(served: Served) -> None:
    listening = [
        connection.laddr.ip
        for process in served.family()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    data = served.folder / "data"
    for name in ("ray_auth_token", "wunder.db"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
