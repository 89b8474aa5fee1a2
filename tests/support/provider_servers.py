"""Local servers that answer as the providers' documentation says, also when they refuse, break or say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from aiohttp import web

Mood = Literal["ok", "limited", "permanent", "broken", "garbage", "lost", "silent", "elsewhere"]


class ProviderServer:
    """One server for all providers; `calls` are the messages that it was asked to send, in order."""

    def __init__(self) -> None:
        self.mood: Mood = "ok"
        self.calls: list[dict[str, Any]] = []
        self.requests: list[web.BaseRequest] = []
        self.tokens = 0
        self.token_ended = False
        self.arrived = asyncio.Event()
        self.port = 0
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ProviderServer]:
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            self._stopping.set()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(request)
        path = request.path
        if path.endswith("/tenant_access_token/internal"):
            self.tokens += 1
            token = {"code": 0, "msg": "ok", "tenant_access_token": f"t-{self.tokens}", "expire": 7200}
            return web.json_response(token)
        if path.startswith("/open-apis/") and self.token_ended:
            self.token_ended = False
            return web.json_response({"code": 99991663, "msg": "Invalid access token for authorization."}, status=400)
        self.calls.append(json.loads(body) if body else {})
        self.arrived.set()
        answer = _ANSWERS[_provider(path)]
        match self.mood:
            case "garbage":
                return web.Response(text="<html>a proxy</html>", content_type="text/html")
            case "broken":
                return web.Response(status=503, text="upstream connect error", headers={"Retry-After": "7"})
            case "lost":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "silent":
                await self._stopping.wait()
                return web.Response()
            case "elsewhere":
                return web.Response(status=307, headers={"Location": f"{self.url}/elsewhere"})
            case _:
                return answer(self.mood, len(self.calls))


def _provider(path: str) -> str:
    if path.startswith("/slack/"):
        return "slack"
    if path.startswith("/bot"):
        return "telegram"
    if path.startswith("/open-apis/"):
        return "feishu"
    return "whatsapp" if path.startswith("/v23.0/") else "webhook"


def _slack(mood: Mood, number: int) -> web.Response:
    if mood == "limited":
        return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": "30"})
    if mood == "permanent":
        return web.json_response({"ok": False, "error": "channel_not_found"})
    return web.json_response({"ok": True, "channel": "C1", "ts": f"1503435956.00000{number}", "message": {}})


def _telegram(mood: Mood, number: int) -> web.Response:
    if mood == "limited":
        error = {
            "error_code": 429,
            "description": "Too Many Requests: retry after 30",
            "parameters": {"retry_after": 30},
        }
        return web.json_response({"ok": False, **error}, status=429)
    if mood == "permanent":
        error = {"error_code": 400, "description": "Bad Request: chat not found"}
        return web.json_response({"ok": False, **error}, status=400)
    return web.json_response({"ok": True, "result": {"message_id": number, "id": 1234, "text": "x"}})


def _feishu(mood: Mood, number: int) -> web.Response:
    if mood == "limited":
        limited = {"code": 99991400, "msg": "request trigger frequency limit"}
        return web.json_response(limited, status=400, headers={"x-ogw-ratelimit-reset": "30"})
    if mood == "permanent":
        return web.json_response({"code": 230002, "msg": "The bot can not be outside the group."}, status=400)
    return web.json_response({"code": 0, "msg": "success", "data": {"message_id": f"om_{number}"}})


def _whatsapp(mood: Mood, number: int) -> web.Response:
    if mood in ("limited", "permanent"):
        code, text = (130429, "Rate limit hit") if mood == "limited" else (131030, "Recipient not in allowed list")
        error = {"message": f"(#{code}) {text}", "type": "OAuthException", "code": code, "fbtrace_id": "Az8"}
        headers = {"Retry-After": "30"} if mood == "limited" else {}
        return web.json_response({"error": error}, status=400, headers=headers)
    answer = {"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": f"wamid.{number}"}], "id": "1065"}
    return web.json_response(answer)


def _webhook(mood: Mood, number: int) -> web.Response:
    if mood == "limited":
        return web.Response(status=429, headers={"Retry-After": "30"})
    return web.Response(status=410 if mood == "permanent" else 204)


_ANSWERS: dict[str, Callable[[Mood, int], web.Response]] = {
    "slack": _slack,
    "telegram": _telegram,
    "feishu": _feishu,
    "whatsapp": _whatsapp,
    "webhook": _webhook,
}
