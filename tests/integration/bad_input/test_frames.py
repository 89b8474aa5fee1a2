"""Wrong WebSocket frames: a typed `error` frame, nothing stored, and the connection goes on."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from gateway.protocol import CloseCode
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

HUGE = 10**30


def frame(type_: str, payload: Any = None, **fields: Any) -> str:
    given = {} if payload is None else {"payload": payload}
    return json.dumps({"type": type_, "request_id": "x", **given, **fields})


UNREADABLE = [
    ("", None),
    ("{", None),
    ("hello", None),
    ("[]", None),
    ("null", None),
    ("[" * 100_000, None),
    ('{"type":"ping","more":' + "[" * 100_000, None),
    ('{"type":"ping","payload":' + "[" * 100_000, None),
    ("{}", "type"),
    ('{"type":3}', "type"),
    ('{"type":"nope"}', "type"),
    ('{"type":"event"}', "type"),
    ('{"type":"' + "x" * 65 + '"}', "type"),
    ('{"type":"ping","request_id":7}', "request_id"),
    ('{"type":"ping","request_id":""}', "request_id"),
    ('{"type":"ping","request_id":"' + "x" * 129 + '"}', "request_id"),
    ('{"type":"ping","request_id":"\\ud800"}', None),
    ('{"type":"watch","session_id":"a b"}', "session_id"),
]
WRONG_PAYLOADS = [
    (frame("ping", []), "payload"),
    (frame("ping", 3), "payload"),
    (frame("connect", {"protocol_version": "1"}), "payload.protocol_version"),
    (frame("connect", {"protocol_version": 2}), "protocol_version"),
    (frame("connect", {"protocol_version": HUGE}), "payload.protocol_version"),
    (frame("connect", {"min_protocol_version": 2, "max_protocol_version": 9}), "protocol_version"),
    (frame("start", {}), "content"),
    (frame("start"), "content"),
    (frame("start", {"content": ""}), "payload.content"),
    (frame("start", {"content": 3}), "payload.content"),
    (frame("start", {"content": "a\0"}), "payload.content"),
    (frame("start", {"content": "hi", "session_id": 3}), "payload.session_id"),
    (frame("start", {"content": "hi", "user_id": "u\n"}), "payload.user_id"),
    (frame("start", {"content": "hi"}), "user_id"),
    (frame("start", {"content": "hi", "user_id": "u", "busy": "no"}), "payload.busy"),
    (frame("start", {"content": "hi", "user_id": "u", "model_name": "scriptd"}), "model_name"),
    (frame("start", {"content": "hi", "user_id": "u", "agent_id": "helpr"}), "agent_id"),
    (frame("start", {"content": "hi", "user_id": "u", "tool_names": ["calculater"]}), "tool_names"),
    (frame("start", {"content": "hi", "user_id": "u", "tool_names": [3]}), "payload.tool_names[0]"),
    (
        frame("start", {"content": "hi", "user_id": "u", "config_overrides": {"max_output": HUGE}}),
        "payload.config_overrides.max_output",
    ),
    (frame("resume", {}), "session_id"),
    (frame("resume", {"session_id": "s", "after_event_id": -1}), "payload.after_event_id"),
    (frame("resume", {"session_id": "s", "after_event_id": 1.5}), "payload.after_event_id"),
    (frame("resume", {"session_id": "s", "after_event_id": "-1"}), "after_event_id"),
    (frame("resume", {"session_id": "s", "after_event_id": "1\n"}), "after_event_id"),
    (frame("resume", {"session_id": "s", "after_event_id": "٣"}), "after_event_id"),
    (frame("resume", {"session_id": "s", "after_event_id": HUGE}), "after_event_id"),
    (frame("resume", {"session_id": "s", "after_event_id": True}), "payload.after_event_id"),
    (frame("watch", {"session_id": "s", "after_event_id": "x"}), "after_event_id"),
    (frame("watch"), "session_id"),
    (frame("cancel", {}), "request_id"),
    (frame("cancel", {"request_id": "nothing"}), "request_id"),
    (frame("cancel", {"turn_id": "t"}), "request_id"),
]


@pytest.mark.parametrize(("text", "field"), UNREADABLE, ids=lambda value: repr(value)[:50])
async def test_a_frame_that_cannot_be_read(world: World, text: str, field: str | None) -> None:
    answer = await refused(world, text)
    assert answer["payload"].get("field") == field


@pytest.mark.parametrize(("text", "field"), WRONG_PAYLOADS, ids=lambda value: repr(value)[:90])
async def test_a_wrong_payload(world: World, text: str, field: str) -> None:
    answer = await refused(world, text)
    assert answer["request_id"] == "x"
    assert answer["payload"]["field"] == field


async def test_a_binary_frame(world: World) -> None:
    async with world.socket() as socket:
        await socket.send_bytes(b'{"type":"ping"}')
        answer = await socket.receive_json()
        assert (answer["type"], answer["payload"]["code"]) == ("error", "INVALID_REQUEST")
        await still_answers(socket)


async def test_a_frame_above_the_limit(world: World) -> None:
    before = await world.stored()
    async with world.socket() as socket:
        await socket.send_str(frame("start", {"content": "x" * 524_288, "user_id": "u"}))
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, CloseCode.TOO_BIG)
    assert await world.stored() == before


async def test_a_request_id_in_use(world: World) -> None:
    async with world.socket() as socket:
        watch = {"type": "watch", "request_id": "w", "payload": {"session_id": world.session_id}}
        await socket.send_json(watch)
        assert (await socket.receive_json())["type"] == "ack"
        before = await world.stored()
        start = {"type": "start", "request_id": "w", "payload": {"content": "hi", "user_id": world.alice.user_id}}
        for again in (watch, {**watch, "type": "resume"}, start):
            await socket.send_json(again)
            answer = await socket.receive_json()
            assert (answer["request_id"], answer["payload"]["code"]) == ("w", "CONFLICT")
        assert await world.stored() == before
        await socket.send_json({"type": "cancel", "request_id": "w"})
        assert await socket.receive_json() == {"type": "ack", "request_id": "w", "payload": {"cancelled": True}}
        await socket.send_json(watch)
        assert (await socket.receive_json())["type"] == "ack"


async def refused(world: World, text: str) -> dict[str, Any]:
    """The error frame that answers it; nothing is stored and the socket still answers."""
    before = await world.stored()
    async with world.socket() as socket:
        await socket.send_str(text)
        answer: dict[str, Any] = await socket.receive_json()
        assert answer["type"] == "error", answer
        assert (answer["payload"]["code"], answer["payload"]["status"]) == ("INVALID_REQUEST", 400)
        await still_answers(socket)
    assert await world.stored() == before
    return answer


async def still_answers(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json({"type": "ping", "request_id": "alive"})
    answer = await socket.receive_json()
    assert (answer["type"], answer["request_id"]) == ("pong", "alive")
