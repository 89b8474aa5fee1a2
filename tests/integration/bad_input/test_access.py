"""Whose is it: foreign pages, other users' sessions on every route, tokens that ended."""

from __future__ import annotations

import json
import re
from typing import Any

import aiohttp
import pytest

from gateway.openapi import BODIES
from gateway.protocol import CloseCode
from tests.integration.bad_input.world import KEY, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = "ses_000000000000000000000000"
VALID_BODIES: dict[str, dict[str, Any]] = {
    "MessageBody": {"content": "hi", "stream": False},
    "UpdateSessionBody": {"title": "mine now"},
    "CancelBody": {},
    "DrainBody": {},
    "AskBody": {"question": "hi", "stream": False},
    "TaskBody": {"question": "hi"},
    "ScheduleBody": {"question": "hi", "cron": "0 0 1 1 *"},
    "UpdateScheduleBody": {"name": "mine now"},
    "AnswerBody": {"call_id": "c", "answer": "hi"},
    "CreateSessionBody": {},
    "RegisterBody": {"username": "x", "password": "y"},
    "LoginBody": {"username": "x", "password": "y"},
    "PasswordBody": {"current_password": "x", "new_password": "y"},
    "ProfileBody": {"email": ""},
    "ChannelAccountBody": {"channel": "slack", "signing_secret": "x", "bot_token": "y"},
    "OutboxBody": {"delivery_ids": ["x"]},
}
OPEN = {
    *("/wunder/auth/register", "/wunder/auth/login", "/healthz", "/readyz", "/metrics", "/openapi.json"),
    *("/", "/console", "/console/{path}"),
}
SIGNED = "/wunder/channel/"
"""Providers sign what they send: there is no other credential, and here no account."""
FOREIGN = [
    "https://evil.example",
    "null",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "HTTP://127.0.0.1",
    "http://127.0.0.1.evil.example",
]


def routes(world: World) -> list[tuple[str, str]]:
    """Every method and path that is served."""
    gateway = next(iter(world.cluster.gateways.values()))
    return [(r.method, r.resource.canonical) for r in gateway.app.router.routes() if r.resource is not None]


def a_body(method: str, path: str) -> bytes | None:
    type_ = BODIES.get((method, path))
    return json.dumps(VALID_BODIES[type_.__name__]).encode() if type_ else None


async def test_somebody_elses_session_does_not_exist_on_any_route(world: World) -> None:
    before, tried = await world.stored(), 0
    for method, path in routes(world):
        if "{session_id}" not in path:
            continue
        tried += 1
        answers = []
        for session_id in (world.session_id, NOBODY):
            there = path.replace("{session_id}", session_id)
            answers.append(await world.call(method, there, a_body(method, path), world.bob.headers))
        assert [a.status for a in answers] == [404, 404], (method, path)
        assert [a.headers["x-error-code"] for a in answers] == ["SESSION_NOT_FOUND"] * 2
        assert without_trace(answers[0].error) == without_trace(answers[1].error), (method, path)
    assert tried >= 8
    assert await world.stored() == before


async def test_somebody_elses_task_does_not_exist_on_any_route(world: World) -> None:
    answer = await world.call("POST", "/wunder/tasks", {"question": "hi"}, world.alice.headers)
    assert answer.status == 202
    before, tried = await world.stored(), 0
    for method, path in routes(world):
        if "{task_id}" not in path:
            continue
        tried += 1
        answers = []
        for task_id in (answer.body["data"]["task_id"], "turn_nobody"):
            there = path.replace("{task_id}", task_id)
            answers.append(await world.call(method, there, a_body(method, path), world.bob.headers))
        assert [a.headers["x-error-code"] for a in answers] == ["NOT_FOUND"] * 2, (method, path)
        assert without_trace(answers[0].error) == without_trace(answers[1].error), (method, path)
    assert tried == 5  # HEAD too
    into = {"question": "hi", "session_id": world.session_id}
    refused = await world.call("POST", "/wunder/tasks", into, world.bob.headers)
    assert (refused.status, refused.error["code"]) == (404, "SESSION_NOT_FOUND")
    assert await world.stored() == before


async def test_somebody_elses_schedule_does_not_exist_on_any_route(world: World) -> None:
    body = VALID_BODIES["ScheduleBody"]
    answer = await world.call("POST", "/wunder/cron", body, world.alice.headers)
    assert answer.status == 201
    before, tried = await world.stored(), 0
    for method, path in routes(world):
        if "{schedule_id}" not in path:
            continue
        tried += 1
        answers = []
        for schedule_id in (answer.body["data"]["schedule_id"], "sch_nobody"):
            there = path.replace("{schedule_id}", schedule_id)
            answers.append(await world.call(method, there, a_body(method, path), world.bob.headers))
        assert [a.headers["x-error-code"] for a in answers] == ["NOT_FOUND"] * 2, (method, path)
        assert without_trace(answers[0].error) == without_trace(answers[1].error), (method, path)
    assert tried == 7  # HEAD too
    into = {**body, "session_id": world.session_id}
    refused = await world.call("POST", "/wunder/cron", into, world.bob.headers)
    assert (refused.status, refused.error["code"]) == (404, "SESSION_NOT_FOUND")
    for stranger in ({**body, "user_id": world.alice.user_id}, {**body, "user_id": "*"}):
        refused = await world.call("POST", "/wunder/cron", stranger, world.bob.headers)
        assert refused.status in (400, 403)
    assert (await world.call("GET", "/wunder/cron?user_id=*", headers=world.bob.headers)).status == 403
    assert (await world.call("GET", "/wunder/cron", headers=world.bob.headers)).body["data"]["items"] == []
    assert await world.stored() == before


async def test_a_turn_in_somebody_elses_session(world: World) -> None:
    before = await world.stored()
    for headers, extra in ((world.bob.headers, {}), (KEY, {"user_id": world.bob.user_id})):
        body = {"question": "hi", "stream": False, "session_id": world.session_id, **extra}
        answer = await world.call("POST", "/wunder", body, headers)
        assert (answer.status, answer.error["code"]) == (404, "SESSION_NOT_FOUND")
    assert await world.stored() == before


async def test_an_administrator_does_not_speak_as_somebody_else(world: World) -> None:
    """It would be a turn of the session's owner: with that user's limits, and in that user's name."""
    admin = await world.register("boss")
    await world.row("UPDATE users SET is_admin = true WHERE user_id = $1 RETURNING user_id", admin.user_id)
    path = f"/wunder/chat/sessions/{world.session_id}"
    before = await world.stored()
    assert (await world.call("GET", path, headers=admin.headers)).status == 200
    for target in (f"{path}/messages", "/wunder"):
        body = {"content": "hi", "question": "hi", "stream": False, "session_id": world.session_id}
        answer = await world.call("POST", target, body, admin.headers)
        assert (answer.status, answer.error["code"]) == (404, "SESSION_NOT_FOUND")
    assert await world.stored() == before


async def test_somebody_elses_session_over_a_websocket(world: World) -> None:
    before = await world.stored()
    payloads = {
        "start": {"content": "hi", "session_id": world.session_id},
        "resume": {"session_id": world.session_id, "after_event_id": 0},
        "watch": {"session_id": world.session_id},
        "cancel": {"session_id": world.session_id},
    }
    async with world.socket(world.bob.headers) as socket:
        for kind, payload in payloads.items():
            for session_id in (world.session_id, NOBODY):
                request = {"type": kind, "request_id": kind, "payload": payload | {"session_id": session_id}}
                await socket.send_json(request)
                answer = await socket.receive_json()
                assert (answer["type"], answer["request_id"]) == ("error", kind)
                assert answer["payload"]["code"] == "SESSION_NOT_FOUND"
    assert await world.stored() == before


async def test_another_user_can_be_named_with_the_api_key_only(world: World) -> None:
    before = await world.stored()
    for method, path, body in (
        ("POST", "/wunder", {"question": "hi", "user_id": world.alice.user_id}),
        ("POST", "/wunder/chat/sessions", {"user_id": world.alice.user_id}),
        ("GET", f"/wunder/chat/sessions?user_id={world.alice.user_id}", None),
        ("GET", "/wunder/chat/sessions?user_id=*", None),
    ):
        answer = await world.call(method, path, body, world.bob.headers)
        assert (answer.status, answer.error["code"], answer.error["field"]) == (403, "PERMISSION_DENIED", "user_id")
    async with world.socket(world.bob.headers) as socket:
        await socket.send_json({"type": "start", "payload": {"content": "hi", "user_id": world.alice.user_id}})
        assert (await socket.receive_json())["payload"]["code"] == "PERMISSION_DENIED"
    assert await world.stored() == before


async def test_the_operators_routes(world: World) -> None:
    before, tried = await world.stored(), 0
    for method, path in routes(world):
        if not path.startswith("/wunder/admin/"):
            continue
        tried += 1
        there = re.sub(r"{\w+}", "nobody", path)
        answer = await world.call(method, there, a_body(method, path), world.bob.headers)
        assert (answer.status, answer.headers["x-error-code"]) == (403, "PERMISSION_DENIED"), (method, path)
    assert tried >= 10
    assert await world.stored() == before


@pytest.mark.parametrize("headers", [{"x-nothing": "1"}, {"X-API-Key": "wrong"}, {"Authorization": "Basic YQ=="}])
async def test_nothing_without_a_credential(world: World, headers: dict[str, str]) -> None:
    before = await world.stored()
    for method, path in routes(world):
        if path in OPEN:
            continue
        there = path.replace("{session_id}", world.session_id).replace("{task_id}", "turn_nobody")
        there = re.sub(r"{\w+}", "nobody", there)
        answer = await world.call(method, there, a_body(method, path), headers)
        expected = (404, "NOT_FOUND") if path.startswith(SIGNED) else (401, "AUTH_REQUIRED")
        assert (answer.status, answer.headers["x-error-code"]) == expected, (method, path)
    assert await world.stored() == before


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page(world: World, origin: str) -> None:
    before = await world.stored()
    headers = {**KEY, "Origin": origin}
    for path in ("/wunder/ws", "/wunder/chat/ws"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await world.http.ws_connect(world.url + path, headers=headers)
        assert refused.value.status == 403
    answer = await world.call("POST", "/wunder", {"question": "hi", "user_id": "u"}, headers)
    assert (answer.status, answer.error["code"]) == (403, "PERMISSION_DENIED")
    assert await world.stored() == before


async def test_our_own_page(world: World) -> None:
    async with world.socket({**KEY, "Origin": world.url}) as socket:
        await socket.send_json({"type": "ping"})
        assert (await socket.receive_json())["type"] == "pong"


async def test_a_token_that_expired(world: World) -> None:
    user = await world.register("dora")
    await world.row("UPDATE tokens SET expires_us = 1 WHERE user_id = $1", user.user_id)
    answer = await world.call("GET", "/wunder/auth/me", headers=user.headers)
    assert (answer.status, answer.error["code"]) == (401, "AUTH_REQUIRED")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.http.ws_connect(f"{world.url}/wunder/chat/ws", headers=user.headers)
    assert refused.value.status == 401


async def test_a_token_that_ended_closes_its_sockets(world: World) -> None:
    user = await world.register("emil")
    async with world.socket(user.headers) as socket:
        assert (await world.call("POST", "/wunder/auth/logout", headers=user.headers)).status == 200
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, CloseCode.TOKEN_ENDED)
    assert (await world.call("GET", "/wunder/auth/me", headers=user.headers)).status == 401


async def test_a_token_that_ended_ends_its_event_streams(world: World) -> None:
    user = await world.register("frida")
    session = await world.call("POST", "/wunder/chat/sessions", {}, user.headers)
    path = f"/wunder/chat/sessions/{session.body['data']['session_id']}/resume?watch=1"
    async with world.http.get(world.url + path, headers=user.headers) as stream:
        assert await stream.content.readline() == b"retry: 1000\n"
        await world.call("POST", "/wunder/auth/logout", headers=user.headers)
        assert await stream.content.read() == b"\n"


async def test_a_ticket_works_once_and_on_get_only(world: World) -> None:
    ticket = (await world.call("POST", "/wunder/auth/ticket", headers=world.alice.headers)).body["data"]["ticket"]
    none = {"x-nothing": "1"}
    assert (await world.call("POST", f"/wunder/auth/logout?ticket={ticket}", headers=none)).status == 401
    assert (await world.call("GET", f"/wunder/auth/me?ticket={ticket}", headers=none)).status == 200
    assert (await world.call("GET", f"/wunder/auth/me?ticket={ticket}", headers=none)).status == 401


async def test_a_token_in_the_query_string(world: World) -> None:
    answer = await world.call("GET", f"/wunder/auth/me?token={world.alice.token}", headers={"x-nothing": "1"})
    assert (answer.status, answer.error["code"]) == (401, "AUTH_REQUIRED")


def without_trace(error: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in error.items() if name not in ("trace_id", "timestamp")}
