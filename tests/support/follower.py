"""A client that follows one session over WebSocket through whatever happens, and checks what it got (oracle O3)."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.support.facts import tick

RECONNECT_S = 0.1
DELTAS = ("llm_output_delta", "tool_output_delta")
JUMPS = ("gap", "rewind")


class Follower:
    """Starts turns and keeps their events in order; a cut connection is resumed from the last event."""

    def __init__(self, url: str, api_key: str, user_id: str = "follower", *, tls: ssl.SSLContext | None = None) -> None:
        self._url = url.replace("http", "ws", 1) + "/wunder/ws"
        self._headers = {"X-API-Key": api_key}
        self.user_id = user_id
        self.session_id = ""
        self.turn_id = ""
        self.events: list[dict[str, Any]] = []
        self.cursor = 0
        self.resumes = 0
        self.close_codes: list[int] = []
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def __aenter__(self) -> Follower:
        connector = aiohttp.TCPConnector(ssl=self._tls or True)
        self._session = aiohttp.ClientSession(headers=self._headers, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        assert self._session is not None
        await self._session.close()

    async def start(self, content: str, **payload: Any) -> dict[str, Any]:
        """Start a turn; its acknowledgement. A lost connection is tried again with the same idempotency key."""
        payload.setdefault("idempotency_key", f"key-{self.user_id}-{content[:60]}-{len(self.events)}")
        while True:
            try:
                socket = await self._connected()
                frame = {"content": content, "user_id": self.user_id, **payload}
                if self.session_id:
                    frame["session_id"] = self.session_id
                await socket.send_json({"type": "start", "request_id": "turn", "payload": frame})
                ack = await self._receive()
                if ack["type"] == "error" and ack["payload"]["status"] == 503:
                    await tick(RECONNECT_S)
                    continue
                assert ack["type"] == "ack", ack
                self.session_id = ack["payload"]["session_id"]
                self.turn_id = ack["payload"]["turn_id"]
                if not self.events:
                    self.cursor = ack["payload"]["after_event_id"]
                return dict(ack["payload"])
            except (aiohttp.ClientError, ConnectionError):
                await self._drop()

    async def until(self, seen: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Receive until an event satisfies `seen`; it is returned."""
        while True:
            try:
                message = await self._receive()
            except (aiohttp.ClientError, ConnectionError):
                await self._resume()
                continue
            if message["type"] == "error" and message["payload"]["status"] == 503:
                await self._resume()
                continue
            if message["type"] != "event":
                assert message["type"] in ("ack", "ready"), message
                continue
            event = message["payload"]
            self._take(event)
            if seen(event):
                return dict(event)

    async def finish(self) -> str:
        """To the turn's terminal event; its status."""
        event = await self.until(lambda e: e["event"] == "turn_terminal" and e["data"]["turn_id"] == self.turn_id)
        return str(event["data"]["data"]["status"])

    async def resume_until_end(self) -> str:
        """Resume after a cut, to the turn's terminal event (which may have been before: then from the events)."""
        await self._resume()
        return await self.finish()

    async def cancel(self) -> None:
        socket = await self._connected()
        await socket.send_json({"type": "cancel", "payload": {"session_id": self.session_id, "turn_id": self.turn_id}})

    def text(self) -> str:
        """The model's text that counts: what a `rewind` took back is gone."""
        kept: list[dict[str, Any]] = []
        for event in self.events:
            if event["event"] == "rewind":
                kept = [e for e in kept if e["id"] <= event["data"]["data"]["to_event_id"]]
            elif event["event"] == "llm_output_delta":
                kept.append(event)
        return "".join(e["data"]["data"].get("delta", "") for e in kept)

    def count(self, kind: str) -> int:
        return sum(e["event"] == kind for e in self.events)

    def _take(self, event: dict[str, Any]) -> None:
        first = event["data"].get("first_id", event["id"])
        if event["event"] not in JUMPS:
            assert first == self.cursor + 1, f"silent gap: {self.cursor} -> {event}"
        assert event["id"] > self.cursor, f"again or out of order: {self.cursor} -> {event}"
        self.cursor = event["id"]
        self.events.append(event)

    async def _resume(self) -> None:
        await self._drop()
        while True:
            try:
                socket = await self._connected()
                payload = {"session_id": self.session_id, "after_event_id": self.cursor}
                await socket.send_json({"type": "watch", "request_id": f"r{self.resumes}", "payload": payload})
                self.resumes += 1
                return
            except (aiohttp.ClientError, ConnectionError):
                await self._drop()

    async def _connected(self) -> aiohttp.ClientWebSocketResponse:
        if self._socket is None:
            assert self._session is not None
            self._socket = await self._session.ws_connect(self._url, max_msg_size=0)
            ready = await self._receive()
            assert ready["type"] == "ready", ready
        return self._socket

    async def _receive(self) -> dict[str, Any]:
        assert self._socket is not None
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.CLOSE:
            self.close_codes.append(message.data)
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise ConnectionError(f"closed: {message.type} {message.data}")
        received: dict[str, Any] = json.loads(message.data)
        return received

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
        await tick(RECONNECT_S)
