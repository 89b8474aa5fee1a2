"""A receiver of webhooks on a real port, which checks signatures by itself and answers as the test says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import defaultdict
from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Received(msgspec.Struct, frozen=True):
    """One request: its path, its headers (lower case), its body as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    def signed_by(self, secret: str) -> bool:
        """Whether one of the signatures is of this secret: the specification's words, not our code."""
        signed = b".".join([self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body])
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return wanted in self.headers["webhook-signature"].split(" ")


class Receiver:
    """`answers[path]` are (status, headers, body) one by one, then 200; `gates[path]` hold answers up."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[Received] = []
        self.answers: dict[str, list[tuple[int, dict[str, str], str]]] = defaultdict(list)
        self.gates: dict[str, asyncio.Event] = {}
        self.port = port
        self._runner: web.AppRunner | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ids(self, path: str) -> list[str]:
        return [found.id for found in self.got if found.path == path]

    async def __aenter__(self) -> Receiver:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for gate in self.gates.values():
            gate.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Received(request.path, headers, await request.read()))
        if request.path in self.gates:
            await self.gates[request.path].wait()
        answers = self.answers[request.path]
        status, more, body = answers.pop(0) if answers else (200, {}, "thanks")
        return web.Response(status=status, headers=more, text=body)
