"""Wrong HTTP requests: each has its typed error that names the field, and leaves nothing behind."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.integration.bad_input.world import KEY, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOMB = b'{"question":"hi","user_id":"u","more":' + b"[" * 200_000
HUGE = 10**30


def ask(**changes: Any) -> bytes:
    return json.dumps({"question": "hi", "user_id": "u", "stream": False, **changes}).encode()


MALFORMED = [
    b"",
    b"{",
    b"nonsense",
    b'{"question":"hi"',
    b'{"question":"\xff"}',
    b'{"question":"\\ud800"}',
    b"\x00",
    BOMB,
]
NOT_AN_OBJECT = [b"[]", b"null", b"3", b'"text"', b"[" * 200_000]
WRONG_FIELDS = [
    (b"{}", "question"),
    (ask(question=None), "question"),
    (ask(question=3), "question"),
    (ask(question=""), "question"),
    (ask(question="a\0b"), "question"),
    (ask(question="x" * 200_001), "question"),
    (ask(user_id=7), "user_id"),
    (ask(user_id=""), "user_id"),
    (ask(user_id="u\n"), "user_id"),
    (ask(user_id="u\0"), "user_id"),
    (ask(user_id="../x"), "user_id"),
    (ask(user_id="x" * 129), "user_id"),
    (ask(session_id="a b"), "session_id"),
    (ask(stream="yes"), "stream"),
    (ask(busy="maybe"), "busy"),
    (ask(allow_queue=1), "allow_queue"),
    (ask(idempotency_key=""), "idempotency_key"),
    (ask(idempotency_key="k\0"), "idempotency_key"),
    (ask(idempotency_key="k" * 201), "idempotency_key"),
    (ask(attachments={}), "attachments"),
    (ask(attachments=[{}]), "attachments[0].content"),
    (ask(attachments=[{"content": "a\0"}]), "attachments[0].content"),
    (ask(attachments=[{"content": "x"}] * 17), "attachments"),
    (ask(tool_names="calculator"), "tool_names"),
    (ask(tool_names=["x" * 129]), "tool_names[0]"),
    (ask(config_overrides=[]), "config_overrides"),
    (ask(config_overrides={"temperature": 3}), "config_overrides.temperature"),
    (ask(config_overrides={"temperature": "hot"}), "config_overrides.temperature"),
    (ask(config_overrides={"max_output": HUGE}), "config_overrides.max_output"),
    (ask(config_overrides={"max_output": -1}), "config_overrides.max_output"),
    (ask(config_overrides={"max_rounds": 0}), "config_overrides.max_rounds"),
    (ask(config_overrides={"system_prompt": "a\0"}), "config_overrides.system_prompt"),
    (ask(config_overrides={"colour": "red"}), "config_overrides"),
    (b'{"question":"hi","user_id":"u","config_overrides":{"temperature":1e999}}', "config_overrides.temperature"),
]
UNKNOWN_NAMES = [
    (ask(model_name="scriptd"), "model_name", "scripted"),
    (ask(model_name="zzz"), "model_name", "scripted"),
    (ask(agent_id="helpr"), "agent_id", "helper"),
    (ask(agent_id="zzz"), "agent_id", "helper"),
    (ask(tool_names=["calculater"]), "tool_names", "calculator"),
    (ask(tool_names=["zzz"]), "tool_names", "calculator"),
]
QUERIES = [
    ("/wunder/chat/sessions", "user_id"),
    ("/wunder/chat/sessions?user_id=%00", "user_id"),
    ("/wunder/chat/sessions?user_id=u&page=0", "page"),
    ("/wunder/chat/sessions?user_id=u&page=99999999999999999999", "page"),
    ("/wunder/chat/sessions?user_id=u&page_size=201", "page_size"),
    ("/wunder/chat/sessions?user_id=u&page_size=%D9%A3", "page_size"),
    ("/wunder/chat/sessions?user_id=u&agent_id=%00", "agent_id"),
    ("/wunder/chat/sessions?user_id=u&agent_id=", "agent_id"),
    ("/wunder/chat/sessions/{session_id}?limit=0", "limit"),
    ("/wunder/chat/sessions/{session_id}?before=x", "before"),
    ("/wunder/chat/sessions/{session_id}?before=-1", "before"),
    ("/wunder/chat/sessions/{session_id}/events?limit=1001", "limit"),
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:20]))
async def test_malformed_json(world: World, body: bytes) -> None:
    await refused(world, "POST", "/wunder", body, field=None)


@pytest.mark.parametrize("body", NOT_AN_OBJECT, ids=lambda body: repr(body[:20]))
async def test_something_else_than_an_object(world: World, body: bytes) -> None:
    await refused(world, "POST", "/wunder", body, field=None)


@pytest.mark.parametrize(("body", "field"), WRONG_FIELDS, ids=lambda value: repr(value)[:60])
async def test_a_wrong_field_is_named(world: World, body: bytes, field: str) -> None:
    assert field in await refused(world, "POST", "/wunder", body, field=field)


@pytest.mark.parametrize(("body", "field", "meant"), UNKNOWN_NAMES, ids=lambda value: repr(value)[:60])
async def test_an_unknown_name_is_met_with_the_known_one(world: World, body: bytes, field: str, meant: str) -> None:
    before = await world.stored()
    answer = await world.call("POST", "/wunder", body)
    assert (answer.status, answer.error["code"], answer.error["field"]) == (400, "INVALID_REQUEST", field)
    assert meant in answer.error["hint"]
    assert await world.stored() == before


@pytest.mark.parametrize(("path", "field"), QUERIES)
async def test_a_wrong_query_is_named(world: World, path: str, field: str) -> None:
    headers = world.alice.headers if "{session_id}" in path else KEY
    await refused(world, "GET", path.format(session_id=world.session_id), None, field=field, headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/wunder/chat/sessions", {"title": "a\0", "user_id": "u"}, "title"),
        ("POST", "/wunder/chat/sessions", {"title": "x" * 201, "user_id": "u"}, "title"),
        ("POST", "/wunder/chat/sessions", {"title": "x"}, "user_id"),
        ("POST", "/wunder/chat/sessions", {"agent_id": "helpr", "user_id": "u"}, "agent_id"),
        ("PATCH", "/wunder/chat/sessions/{session_id}", {"title": 3}, "title"),
        ("PATCH", "/wunder/chat/sessions/{session_id}", {"title": "a\0"}, "title"),
        ("PATCH", "/wunder/chat/sessions/{session_id}", {"archived": "yes"}, "archived"),
        ("POST", "/wunder/chat/sessions/{session_id}/messages", {"content": ""}, "content"),
        ("POST", "/wunder/chat/sessions/{session_id}/messages", {"question": "hi"}, "content"),
        ("POST", "/wunder/chat/sessions/{session_id}/cancel", {"turn_id": 3}, "turn_id"),
        ("POST", "/wunder/chat/sessions/{session_id}/cancel", {"turn_id": "a b"}, "turn_id"),
        ("POST", "/wunder/auth/register", {"username": "a\0b", "password": "a quiet green lamp"}, "username"),
        ("POST", "/wunder/auth/register", {"username": "carol"}, "password"),
        ("POST", "/wunder/auth/register", {"username": "admin", "password": "a quiet green lamp"}, "username"),
        ("POST", "/wunder/auth/login", {"username": []}, "username"),
    ],
)
async def test_the_other_bodies_are_checked_too(
    world: World, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    await refused(world, method, path.format(session_id=world.session_id), body, field=field)


async def test_a_name_with_nul_cannot_sign_in(world: World) -> None:
    answer = await world.call("POST", "/wunder/auth/login", {"username": "alice\0", "password": "a quiet green lamp"})
    assert (answer.status, answer.error["code"]) == (401, "AUTH_REQUIRED")


async def test_a_body_above_the_limit(world: World) -> None:
    before = await world.stored()

    async def pieces() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    for data in (io.BytesIO(b" " * 1_048_577), pieces()):
        async with world.http.post(f"{world.url}/wunder", data=data, headers=KEY) as response:
            error = (await response.json())["error"]
        assert (response.status, error["code"], response.headers["x-error-code"]) == (413, *["PAYLOAD_TOO_LARGE"] * 2)
    assert await world.stored() == before


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/wunder", "POST"),
        ("GET", "/wunder", "POST"),
        ("DELETE", "/wunder/auth/me", "GET,HEAD,PATCH"),
        ("PATCH", "/wunder/chat/sessions", "GET,HEAD,POST"),
        ("HEAD", "/wunder/chat/sessions/{session_id}/resume", "GET"),
    ],
)
async def test_a_wrong_method(world: World, method: str, path: str, allowed: str) -> None:
    answer = await world.call(method, path.format(session_id=world.session_id))
    assert (answer.status, answer.headers["x-error-code"], answer.headers["Allow"]) == (405, "INVALID_REQUEST", allowed)


@pytest.mark.parametrize(
    "path", ["//", "/nope", "/wunder/", "/wunder/chat/sessions/a%20b", "/wunder/chat/sessions/%0a", "/wunder/../etc"]
)
async def test_an_unknown_path(world: World, path: str) -> None:
    answer = await world.call("GET", path)
    assert (answer.status, answer.error["code"]) == (404, "NOT_FOUND")
    assert answer.error["trace_id"] == answer.headers["x-trace-id"]


async def test_a_websocket_path_without_a_handshake(world: World) -> None:
    answer = await world.call("GET", "/wunder/chat/ws")
    assert (answer.status, answer.error["code"]) == (400, "INVALID_REQUEST")


async def test_a_forged_trace_id_is_replaced(world: World) -> None:
    answer = await world.call("GET", "/nope", headers={"x-trace-id": "a b\tc"})
    assert answer.headers["x-trace-id"].startswith("tr_")


async def refused(
    world: World, method: str, path: str, body: Any, *, field: str | None, headers: dict[str, str] | None = None
) -> str:
    """400 for this field, and nothing stored; the message."""
    before = await world.stored()
    answer = await world.call(method, path, body, headers)
    assert (answer.status, answer.error.get("code"), answer.error.get("field")) == (400, "INVALID_REQUEST", field), (
        answer
    )
    assert await world.stored() == before
    return str(answer.error["message"])
