"""Bodies in: limits, deadlines, errors that name the field. Errors out: one shape."""

from __future__ import annotations

import asyncio
import gzip
import inspect
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web

import actors.errors
import gateway.errors
from gateway.http_common import decode_json, error_object, error_response, ok, read_json
from storage.errors import (
    Conflict,
    InvalidRequest,
    StorageError,
    StorageFull,
    StorageUnavailable,
    WunderError,
)
from tests.support.edge import Edge, edge_settings, running_edge
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers


class Part(msgspec.Struct):
    name: str


class Body(msgspec.Struct):
    question: str
    parts: list[Part] = []
    options: dict[str, object] = {}


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (b"{}", "question", "question: this field is required"),
        (b'{"question": 1}', "question", "question: Expected `str`, got `int`"),
        (b'{"question": "q", "parts": 1}', "parts", "parts: Expected `array`, got `int`"),
        (b'{"question": "q", "parts": [{}]}', "parts[0].name", "parts[0].name: this field is required"),
        (b'{"question": "q", "parts": [{"name": null}]}', "parts[0].name", None),
        (b"[]", None, "Expected `object`, got `array`"),
        (b"", None, "the body is not valid JSON"),
        (b"{", None, "the body is not valid JSON"),
        (b"{}}", None, None),
        (b'{"question": "\xff"}', None, "the body is not valid JSON"),
        (b'{"question": "\\ud800"}', None, "the body is not valid JSON"),
        (b'{"question": "q", "options": {"a": ' + b"[" * 100_000, None, "the body is not valid JSON"),
    ],
)
def test_what_is_wrong_is_named(text: bytes, field: str | None, message: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode_json(text, Body)
    assert refused.value.field == field or text == b"{}}"
    if message is not None:
        assert refused.value.message == message


def test_unknown_fields_are_ignored() -> None:
    assert decode_json(b'{"question": "q", "from_the_future": 1}', Body) == Body("q")


@pytest.fixture
async def edge(users: MemoryUsers, clock: ManualClock) -> AsyncIterator[Edge]:
    settings = edge_settings(gateway={"max_body_bytes": 2048, "request_timeout_s": 0.05})

    async def echo(request: web.Request) -> web.Response:
        body = await read_json(request, Body)
        return ok(len(body.question))

    def add_routes(app: web.Application) -> None:
        app.router.add_post("/echo", echo)

    async with running_edge(users, settings, clock, add_routes=add_routes) as running:
        yield running


def sized(total: int) -> bytes:
    return b'{"question": "' + b"x" * (total - 16) + b'"}'


@pytest.mark.parametrize(("size", "status"), [(1024, 200), (2048, 200), (2049, 413), (100_000, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_has_a_limit(edge: Edge, size: int, status: int, chunked: bool) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield sized(size)

    async with edge.client.post("/echo", data=parts() if chunked else sized(size)) as response:
        answer = await response.json()
        assert response.status == status
        if status == 413:
            assert answer["error"]["code"] == "PAYLOAD_TOO_LARGE"
            assert "2048" in answer["error"]["message"]


async def test_a_small_body_that_unpacks_to_a_large_one_is_refused(edge: Edge) -> None:
    packed = gzip.compress(sized(10_000_000))
    async with edge.client.post("/echo", data=packed, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status in {400, 413}


async def test_a_body_that_is_not_what_its_encoding_says_is_refused(edge: Edge) -> None:
    async with edge.client.post("/echo", data=b"{}", headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense"])
async def test_the_content_type_does_not_matter(edge: Edge, content_type: str) -> None:
    async with edge.client.post("/echo", data=sized(64), headers={"Content-Type": content_type}) as response:
        assert response.status == 200


async def test_a_body_that_does_not_arrive_is_a_timeout(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.client.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    answer = await reader.read()  # until the server closes
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"REQUEST_TIMEOUT"' in answer
    writer.close()
    await writer.wait_closed()


async def test_sign_in_bodies_are_smaller(users: MemoryUsers, clock: ManualClock) -> None:
    async with running_edge(users, edge_settings(), clock) as edge:
        body = {"username": "ada", "password": "x", "padding": "x" * 20_000}
        assert (await edge.call("POST", "/wunder/auth/login", body))[0] == 413


# -- errors out --------------------------------------------------------------------------------------------


def _errors() -> list[type[WunderError]]:
    known = [*vars(actors.errors).values(), *vars(gateway.errors).values()]
    return [each for each in known if inspect.isclass(each) and issubclass(each, WunderError)]


@pytest.mark.parametrize("type_", _errors())
def test_every_error_has_the_same_shape(type_: type[WunderError]) -> None:
    response = error_response(type_("why", retry_after_s=2.2), "tr_1", 0)
    body = msgspec.json.decode(response.body)  # type: ignore[arg-type]
    assert set(body) == {"ok", "error"}
    assert set(body["error"]) == {"code", "message", "status", "hint", "trace_id", "timestamp"}
    assert body["ok"] is False
    assert body["error"]["status"] == response.status == type_.status
    assert response.headers["x-error-code"] == body["error"]["code"]
    assert response.headers.get("Retry-After") == ("3" if type_.status in {429, 503} else None)


def test_retry_after_is_one_second_unless_known() -> None:
    assert error_response(StorageUnavailable("down"), "tr_1", 0).headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "error",
    [
        WunderError("SELECT secret", detail={"query": "secret"}),
        StorageError("SELECT secret"),
        StorageUnavailable("postgres://secret@host"),
        StorageFull("/secret/path", detail={"path": "secret"}),
        Conflict("taken", detail={"constraint": "secret"}),
    ],
)
def test_errors_show_nothing_of_the_inside(error: WunderError) -> None:
    assert "secret" not in str(error_object(error, "tr_1", 0))


def test_details_for_the_caller_are_kept() -> None:
    error = Conflict("taken", field="username", hint="choose another", detail={"reason": "taken"})
    assert error_object(error, "tr_1", 0) == {
        "code": "CONFLICT",
        "message": "taken",
        "status": 409,
        "hint": "choose another",
        "trace_id": "tr_1",
        "timestamp": "1970-01-01T00:00:00.000Z",
        "field": "username",
        "detail": {"reason": "taken"},
    }
