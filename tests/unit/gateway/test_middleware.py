from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from actors.errors import ServiceUnavailable
from gateway.errors import RateLimited
from tests.support.edge import Edge, edge_settings, running_edge
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers


async def _page(_: web.Request) -> web.Response:
    return web.Response(text="<p>hello", content_type="text/html")


async def _broken(_: web.Request) -> web.Response:
    raise RuntimeError("the password is hunter2")


async def _limited(_: web.Request) -> web.Response:
    raise RateLimited("slowly", retry_after_s=7)


async def _busy(_: web.Request) -> web.Response:
    raise ServiceUnavailable("full")


async def _too_large(_: web.Request) -> web.Response:
    raise web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2)


async def _teapot(_: web.Request) -> web.Response:
    raise web.HTTPBadGateway(reason="secret upstream")


async def _moved(_: web.Request) -> web.Response:
    raise web.HTTPFound("/page")


async def _broken_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "text/event-stream"
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    raise RuntimeError("in the middle")


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("wunder",))
    await socket.prepare(request)
    await socket.close()
    return socket


async def _session(request: web.Request) -> web.Response:
    request.app[CLOCK_TO_MOVE].advance(1.5)
    return web.Response(text=request.match_info["id"])


CLOCK_TO_MOVE = web.AppKey("clock_to_move", ManualClock)


@pytest.fixture
async def edge(users: MemoryUsers, clock: ManualClock) -> AsyncIterator[Edge]:
    def add_routes(app: web.Application) -> None:
        app[CLOCK_TO_MOVE] = clock
        app.router.add_get("/page", _page)
        app.router.add_get("/broken", _broken)
        app.router.add_get("/limited", _limited)
        app.router.add_get("/busy", _busy)
        app.router.add_get("/too_large", _too_large)
        app.router.add_get("/teapot", _teapot)
        app.router.add_get("/moved", _moved)
        app.router.add_get("/broken_stream", _broken_stream)
        app.router.add_get("/socket", _socket)
        app.router.add_get("/sessions/{id}", _session)

    async with running_edge(users, edge_settings(), clock, add_routes=add_routes) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "status", "code", "retry_after"),
    [
        ("/nowhere", 404, "NOT_FOUND", None),
        ("/wunder/auth/login", 405, "INVALID_REQUEST", None),
        ("/too_large", 413, "PAYLOAD_TOO_LARGE", None),
        ("/limited", 429, "RATE_LIMITED", "7"),
        ("/busy", 503, "SERVICE_UNAVAILABLE", "1"),
        ("/broken", 500, "INTERNAL_ERROR", None),
        ("/teapot", 500, "INTERNAL_ERROR", None),
    ],
)
async def test_every_refusal_has_one_shape(
    edge: Edge, path: str, status: int, code: str, retry_after: str | None
) -> None:
    async with edge.client.get(path) as response:
        text = await response.text()
        error = (await response.json())["error"]
        assert (response.status, error["status"], error["code"]) == (status, status, code)
        assert response.headers["x-error-code"] == code
        assert response.headers["x-trace-id"] == error["trace_id"]
        assert response.headers.get("Retry-After") == retry_after
        assert not any(word in text for word in ("hunter2", "RuntimeError", "Traceback", "secret"))
        if status == 405:
            assert response.headers["Allow"] == "POST"


async def test_an_unexpected_error_is_logged_with_its_trace_id_and_without_its_values(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "wunder"):
        await edge.call("GET", "/broken", headers={"x-trace-id": "trace-me"})
    (record,) = [each for each in caplog.records if each.getMessage() == "request_failed"]
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["trace_id"], fields["route"], fields["error"]) == ("trace-me", "/broken", "RuntimeError")
    assert "hunter2" not in str(fields)


async def test_a_redirect_passes(edge: Edge) -> None:
    async with edge.client.get("/moved", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/page")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-DEF_1.2", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("a b", False),
        ("<script>", False),
        ("ä", False),
    ],
)
async def test_a_valid_trace_id_is_kept(edge: Edge, sent: str, kept: bool) -> None:
    async with edge.client.get("/page", headers={"x-trace-id": sent}) as response:
        given = response.headers["x-trace-id"]
        assert (given == sent) is kept
        assert kept or given.startswith("tr_")


async def test_an_api_answer_is_not_stored_or_sniffed(edge: Edge) -> None:
    async with edge.client.get("/whoami") as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response.headers["Server"] == "wunder"
        assert "Strict-Transport-Security" not in response.headers


async def test_a_page_may_load_its_own_scripts_only(edge: Edge) -> None:
    async with edge.client.get("/page", headers={"X-Forwarded-Proto": "https"}) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "Strict-Transport-Security" in response.headers


async def test_a_stream_that_breaks_is_cut_not_finished(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    async with edge.client.get("/broken_stream") as response:
        assert response.status == 200
        assert response.headers["x-trace-id"]
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == ["request_failed"]


async def test_a_websocket_gets_its_trace_id(edge: Edge) -> None:
    async with edge.client.ws_connect("/socket", headers={"x-trace-id": "t1"}, protocols=("wunder",)) as socket:
        assert socket.protocol == "wunder"
        assert socket._response.headers["x-trace-id"] == "t1"


async def test_requests_are_observed_by_route_never_by_path(edge: Edge) -> None:
    await edge.client.get("/sessions/secret-id")
    await edge.client.get("/nowhere/secret-id")
    await edge.client.get("/broken")
    await edge.client.request("PROPFIND", "/sessions/secret-id")
    await edge.client.get("/moved", allow_redirects=False)
    assert edge.observed == [
        ("/sessions/{id}", "GET", "2xx", 1.5),
        ("unmatched", "GET", "4xx", 0.0),
        ("/broken", "GET", "5xx", 0.0),
        ("unmatched", "OTHER", "4xx", 0.0),
        ("/moved", "GET", "3xx", 0.0),
    ]


async def test_parallel_requests_keep_their_trace_ids(edge: Edge) -> None:
    async def one(number: int) -> bool:
        async with edge.client.get("/whoami", headers={"x-trace-id": f"t{number}"}) as response:
            return bool((await response.json())["error"]["trace_id"] == f"t{number}")

    assert all(await asyncio.gather(*(one(number) for number in range(20))))
