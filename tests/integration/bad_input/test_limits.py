"""Limits of connections and requests: the refusal is typed, and means that nothing was started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from gateway.protocol import CloseCode
from tests.integration.bad_input.world import KEY, running_world


async def test_too_many_connections_of_a_user(tmp_path: Path) -> None:
    async with running_world(tmp_path, gateway={"max_connections_per_user": 1}) as world, world.socket():
        before = await world.stored()
        answer = await world.call("POST", "/wunder", {"question": "hi", "user_id": "u"})
        assert (answer.status, answer.error["code"]) == (429, "RATE_LIMITED")
        assert int(answer.headers["Retry-After"]) >= 1
        async with world.http.ws_connect(f"{world.url}/wunder/ws", headers=KEY) as second:
            closed = await second.receive()
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, CloseCode.TOO_MANY)
        assert await world.stored() == before
        async with world.socket(world.alice.headers) as other:
            await other.send_json({"type": "ping"})
            assert (await other.receive_json())["type"] == "pong"


async def test_too_many_requests_on_a_connection(tmp_path: Path) -> None:
    limits = {"max_subscriptions_per_connection": 2}
    async with running_world(tmp_path, gateway=limits) as world, world.socket() as socket:
        for number in range(2):
            await socket.send_json(watch(world.session_id, number))
            assert (await socket.receive_json())["type"] == "ack"
        await socket.send_json(watch(world.session_id, 2))
        answer = await socket.receive_json()
        assert (answer["request_id"], answer["payload"]["code"]) == ("2", "RATE_LIMITED")
        await socket.send_json({"type": "cancel", "request_id": "0"})
        assert (await socket.receive_json())["payload"] == {"cancelled": True}
        await socket.send_json(watch(world.session_id, 2))
        assert (await socket.receive_json())["type"] == "ack"


async def test_a_draining_gateway(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world, world.socket() as socket:
        next(iter(world.cluster.gateways.values())).connections.drain()
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, CloseCode.DRAINING)
        before = await world.stored()
        for method, path in (("POST", "/wunder"), ("GET", f"/wunder/chat/sessions/{world.session_id}/resume")):
            body = {"question": "hi"} if method == "POST" else None
            answer = await world.call(method, path, body, world.alice.headers)
            assert (answer.status, answer.error["code"]) == (503, "SERVICE_UNAVAILABLE")
            assert "Retry-After" in answer.headers
        assert (await world.call("GET", "/readyz")).status == 503
        assert (await world.call("GET", "/healthz")).status == 200
        assert await world.stored() == before


def watch(session_id: str, number: int) -> dict[str, Any]:
    return {"type": "watch", "request_id": str(number), "payload": {"session_id": session_id}}


async def test_too_many_messages_on_a_connection(tmp_path: Path) -> None:
    limits = {"messages_per_minute": 0.01, "message_burst": 3}
    async with running_world(tmp_path, gateway=limits) as world, world.socket() as socket:
        for number in range(6):
            await socket.send_json({"type": "ping", "request_id": str(number)})
            answer = await socket.receive_json()
            assert answer["request_id"] == str(number)
            assert answer["payload"].get("code") == (None if number < 3 else "RATE_LIMITED")
        await socket.send_json({"type": "ping"})
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, CloseCode.POLICY)


async def test_binary_frames_count_as_messages(tmp_path: Path) -> None:
    limits = {"messages_per_minute": 0.01, "message_burst": 2}
    async with running_world(tmp_path, gateway=limits) as world, world.socket() as socket:
        for _ in range(5):
            await socket.send_bytes(b"x")
        codes = [(await socket.receive_json())["payload"]["code"] for _ in range(4)]
        assert codes == ["INVALID_REQUEST"] * 2 + ["RATE_LIMITED"] * 2
        assert (await socket.receive()).data == CloseCode.POLICY
