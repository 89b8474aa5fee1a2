"""A real nginx with the file that we ship, before real gateways: streams, sockets, addresses, limits, and a drain."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.facts import eventually, within
from tests.support.follower import Follower
from tests.support.local_cluster import LocalCluster, local_cluster, local_settings
from tests.support.nginx import PROXY_ADDRESS, Nginx

KEY = "test-api-key"
HEADERS = {"X-API-Key": KEY}
WRONG = {"X-API-Key": "wrong-api-key"}
BURST = 5


class Front:
    """nginx before two gateways."""

    def __init__(self, cluster: LocalCluster, nginx: Nginx) -> None:
        self.cluster = cluster
        self.nginx = nginx

    def client(self, address: str = "127.0.0.1", **options: Any) -> aiohttp.ClientSession:
        """One that comes from this address of ours."""
        connector = aiohttp.TCPConnector(ssl=self.nginx.tls, local_addr=(address, 0))
        return aiohttp.ClientSession(connector=connector, **options)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    settings = local_settings(
        tmp_path,
        server={"behind_proxy": True, "trusted_proxies": (PROXY_ADDRESS,)},
        llm={"models": {"scripted": {"scripted_delay_ms": 20.0}}},
        auth={"network_burst": BURST, "network_rate_per_minute": 0.001, "registration": "open"},
    )
    async with local_cluster(settings, gateways=2) as cluster:
        folder = tmp_path / "nginx"
        folder.mkdir()
        nginx = Nginx(folder, *(gateway.address for gateway in cluster.gateways.values()))
        try:
            nginx.start()
            await eventually(lambda: _listens(nginx.url), "nginx listens")
            yield Front(cluster, nginx)
        finally:
            nginx.stop()


def _listens(url: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1):
            return True
    except OSError:
        return False


async def next_event(response: aiohttp.ClientResponse) -> tuple[str, dict[str, Any]]:
    """The next server-sent event: its kind, and its data with its `id`."""
    kind, data, number = "", "", 0
    while True:
        line = (await within(response.content.readline(), "the next line of the stream")).decode()
        assert line, "the stream has ended"
        if line.startswith("event: "):
            kind = line[7:].strip()
        elif line.startswith("data: "):
            data = line[6:]
        elif line.startswith("id: "):
            number = int(line[4:])
        elif line == "\n" and kind:
            return kind, {**json.loads(data), "id": number}


async def test_events_arrive_one_by_one(front: Front) -> None:
    body = {"question": "count to 150", "user_id": "reader"}
    async with (
        front.client(headers=HEADERS) as client,
        client.post(f"{front.nginx.url}/wunder", json=body) as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        kind, data = await next_event(response)
        while kind != "llm_output_delta":
            kind, data = await next_event(response)
        path = f"/wunder/chat/sessions/{data['session_id']}"
        async with client.get(front.cluster.url + path, params={"user_id": "reader"}) as seen:
            assert (await seen.json())["data"]["session"]["running"], "the first delta is here before the end"
        kinds = [kind]
        while kinds[-1] != "turn_terminal":
            kinds.append((await next_event(response))[0])
        assert kinds.count("llm_output_delta") > 20


async def test_a_quiet_stream_is_kept(tmp_path: Path) -> None:
    """What keeps it is shorter than what would cut it."""
    text = (Path(__file__).parents[2] / "deploy" / "nginx" / "wunder.conf").read_text()
    gateway = local_settings(tmp_path).gateway
    seconds = float(text.split("proxy_read_timeout")[1].split("s;")[0])
    assert seconds > 2 * max(gateway.heartbeat_s, gateway.sse_heartbeat_s)


async def test_a_chat_over_a_websocket(front: Front) -> None:
    async with Follower(front.nginx.url, KEY, "talker", tls=front.nginx.tls) as follower:
        await follower.start("calculate 6*7")
        assert await follower.finish() == "succeeded"
        assert follower.count("tool_result") == 1


async def test_our_own_https_pages_may_connect_and_others_may_not(front: Front) -> None:
    url = f"{front.nginx.url}/wunder/ws"
    async with front.client(headers=HEADERS) as client:
        async with client.ws_connect(url, origin=front.nginx.url) as opened:
            assert (await opened.receive_json())["type"] == "ready"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(url, origin="https://elsewhere.example")
    assert refused.value.status == 403


async def guess(client: aiohttp.ClientSession, url: str, **headers: str) -> int:
    async with client.get(f"{url}/wunder/auth/me", headers={**WRONG, **headers}) as answer:
        return answer.status


async def test_the_proxys_word_counts_and_a_clients_own_does_not(front: Front) -> None:
    """Who guesses is counted by address: by the one that nginx saw, whatever the client says of itself."""
    gateway = front.cluster.url
    statuses = []
    async with front.client("127.0.0.3") as guesser:
        for number in range(4 * BURST):
            statuses.append(await guess(guesser, front.nginx.url, **{"X-Forwarded-For": f"203.0.113.{number}"}))
        assert statuses.count(429) >= BURST, "a new name for each guess changes nothing"
    async with front.client("127.0.0.4") as other:
        assert await guess(other, front.nginx.url) == 401, "behind the same proxy, but somebody else"
    statuses = []
    async with front.client("127.0.0.5") as direct:
        for number in range(2 * BURST):
            statuses.append(await guess(direct, gateway, **{"X-Forwarded-For": f"203.0.113.{number}"}))
    assert statuses.count(429) == BURST, "past the proxy nobody's word counts"


async def test_a_gateway_that_drains_sends_its_readers_to_the_other(front: Front) -> None:
    async with Follower(front.nginx.url, KEY, "mover", tls=front.nginx.tls) as follower:
        await follower.start("count to 300")
        await follower.until(lambda e: e["event"] == "llm_output_delta")
        name = next(name for name, gateway in front.cluster.gateways.items() if len(gateway.connections))
        await front.cluster.stop_gateway(name)
        assert await follower.finish() == "succeeded"
        assert follower.close_codes[0] == 1012
        assert follower.resumes > 0
        assert (follower.count("gap"), follower.count("rewind")) == (0, 0)


async def test_a_drained_event_stream_ends_and_goes_on_from_its_last_event(front: Front) -> None:
    body = {"question": "count to 300", "user_id": "reader"}
    async with front.client(headers=HEADERS) as client:
        async with client.post(f"{front.nginx.url}/wunder", json=body) as response:
            kind, data = await next_event(response)
            while kind != "llm_output_delta":
                kind, data = await next_event(response)
            name = next(name for name, gateway in front.cluster.gateways.items() if len(gateway.connections))
            stopping = asyncio.create_task(front.cluster.stop_gateway(name))
            rest = (await within(response.content.read(), "the stream ends")).decode()
            await stopping
        assert "turn_terminal" not in rest
        ids = [data["id"], *(int(line[4:]) for line in rest.splitlines() if line.startswith("id: "))]
        path = f"/wunder/chat/sessions/{data['session_id']}/resume"
        headers = {"Last-Event-ID": str(ids[-1])}
        async with client.get(f"{front.nginx.url}{path}?user_id=reader", headers=headers) as resumed:
            assert resumed.status == 200, await resumed.text()
            text = (await within(resumed.content.read(), "the turn's end", timeout_s=30)).decode()
        assert text.count("event: turn_terminal") == 1
        assert "event: gap" not in text


async def test_a_body_that_is_too_big_gets_our_answer(front: Front) -> None:
    async with front.client(headers=HEADERS) as client:
        body = io.BytesIO(json.dumps({"question": "x" * 1_200_000, "user_id": "big"}).encode())
        async with client.post(f"{front.nginx.url}/wunder", data=body) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == "PAYLOAD_TOO_LARGE"


async def test_what_is_for_operators_stays_inside_and_plain_http_is_sent_to_tls(front: Front) -> None:
    async with front.client() as client:
        for path, status in (("/healthz", 200), ("/metrics", 404), ("/readyz", 404)):
            async with client.get(front.nginx.url + path) as answer:
                assert answer.status == status, path
        async with client.get(f"{front.nginx.plain_url}/x?y=1", allow_redirects=False) as answer:
            assert answer.status == 301
            assert answer.headers["Location"] == "https://127.0.0.1/x?y=1"


async def test_a_ticket_does_not_reach_the_log(front: Front) -> None:
    async with front.client() as client, client.get(f"{front.nginx.url}/wunder/ws?ticket=wtkt_secret") as answer:
        assert answer.status in {400, 401, 426}
    await eventually(lambda: "/wunder/ws" in front.nginx.access_log(), "it is logged")
    assert "wtkt_secret" not in front.nginx.access_log()
