"""A server that plays a script: one coroutine for each WebSocket connection, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

TOKEN = "wund_test"
SESSION, TURN = "ses_1", "turn_1"


class Peer:
    """The server's side of one connection."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.request_id = ""

    async def receive(self, kind: str) -> dict[str, Any]:
        """The payload of the next frame, which has to be of this type."""
        frame = await self._socket.receive_json(timeout=10)
        assert frame["type"] == kind
        if kind != "cancel":
            self.request_id = frame["request_id"]
        payload: dict[str, Any] = frame["payload"]
        return payload

    async def send(self, kind: str, payload: dict[str, Any], request_id: str | None = None) -> None:
        frame = {"type": kind, "request_id": request_id or self.request_id, "payload": payload}
        await self._socket.send_json(frame)

    async def ack(self, *, queued: bool = False, after: int = 0) -> None:
        payload = {"turn_id": TURN, "session_id": SESSION, "queued": queued, "position": 2 if queued else 0}
        await self.send("ack", payload | {"after_event_id": after})

    async def event(self, number: int, kind: str, turn_id: str = TURN, /, **data: Any) -> None:
        envelope = {"session_id": SESSION, "turn_id": turn_id, "timestamp": "t", "data": data}
        await self.send("event", {"event": kind, "id": number, "data": envelope})

    async def deltas(self, first: int, *texts: str) -> None:
        for number, text in enumerate(texts, first):
            await self.event(number, "llm_output_delta", delta=text)

    async def end(self, number: int, status: str = "succeeded") -> None:
        await self.event(number, "turn_terminal", status=status)

    async def close(self, code: int) -> None:
        await self._socket.close(code=code)

    def cut(self) -> None:
        """Drop the connection as a dying machine would."""
        transport = self._socket.get_extra_info("socket")
        assert self._socket._req is not None
        assert self._socket._req.transport is not None
        assert transport is not None
        self._socket._req.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has left."""
        message = await self._socket.receive(timeout=10)
        assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}


Script = Callable[[Peer], Awaitable[None]]


class FakeServer:
    """Where it listens, and what it was asked."""

    def __init__(self, scripts: tuple[Script | int, ...]) -> None:
        self._scripts = list(scripts)
        self.requests: list[tuple[str, Any]] = []
        self.queries: list[dict[str, str]] = []
        self.methods: list[str] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.url = ""

    async def socket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        script = self._scripts.pop(0)
        if isinstance(script, int):
            return web.Response(status=script)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "ready", "payload": {"connection_id": "c"}})
        await script(Peer(socket))
        return socket

    async def http(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else dict(request.headers)
        self.requests.append((request.path, body))
        self.queries.append(dict(request.query))
        self.methods.append(request.method)
        status, answer = self.answers.get(request.rel_url.raw_path, (404, {"ok": False}))
        answer = answer(request) if callable(answer) else answer
        return web.json_response(answer, status=status)

    @property
    def finished(self) -> bool:
        return not self._scripts


@asynccontextmanager
async def fake_server(*scripts: Script | int) -> AsyncIterator[FakeServer]:
    """Serve these connections (a number refuses one with that status)."""
    fake = FakeServer(scripts)
    app = web.Application()
    app.router.add_get("/wunder/chat/ws", fake.socket)
    app.router.add_route("*", "/{path:.*}", fake.http)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake
