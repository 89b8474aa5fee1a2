"""Clients for the stream suite: a WebSocket with many requests, an event stream, and the events page."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from tests.support.facts import WAIT_S, within
from tests.support.reading import Reading

KEY = {"X-API-Key": "test-api-key"}


class Request:
    """One live request of a socket."""

    def __init__(self, tab: Tab, request_id: str) -> None:
        self.tab = tab
        self.request_id = request_id
        self.ack: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.reading: Reading | None = None
        self.changed = asyncio.Event()
        self.before: Request | None = None

    def receive(self, frame: dict[str, Any]) -> None:
        payload = frame["payload"]
        if frame["type"] == "ack" and self.ack is None:
            self.ack = payload
        elif frame["type"] == "error":
            self.error = payload
            if self.before is not None and payload["code"] == "CONFLICT":
                self.tab.requests[self.request_id] = self.before
        elif frame["type"] == "event":
            assert self.reading is not None, f"an event before its request was answered: {frame}"
            self.reading.take(payload)
        self.changed.set()

    async def until(self, fact: Callable[[], Any], what: str = "", timeout_s: float = WAIT_S) -> Any:
        """Wait until a fact about this request is true; errors of the reader are raised here."""

        async def wait() -> Any:
            while True:
                if self.tab.failure is not None:
                    raise self.tab.failure
                if found := fact():
                    return found
                self.changed.clear()
                await self.changed.wait()

        return await within(wait(), f"{self.request_id} {what} (at {self._where()})", timeout_s)

    async def acked(self) -> dict[str, Any]:
        """Its acknowledgement; an error frame fails."""
        await self.until(lambda: self.ack or self.error, "ack")
        assert self.ack is not None, self.error
        return self.ack

    async def failed(self) -> dict[str, Any]:
        await self.until(lambda: self.error, "error")
        assert self.error is not None
        return self.error

    async def saw(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th event of a kind."""
        assert self.reading is not None
        reading = self.reading
        await self.until(lambda: len(reading.of(kind)) >= count, f"{count} x {kind}")
        return reading.of(kind)[count - 1]

    async def reached(self, seq: int) -> None:
        assert self.reading is not None
        reading = self.reading
        await self.until(lambda: reading.cursor >= seq, f"event {seq}")

    async def ended(self, turn_id: str) -> str:
        """How a turn ended."""
        assert self.reading is not None
        reading = self.reading
        await self.until(lambda: turn_id in reading.ended, f"end of {turn_id}")
        return reading.status(turn_id)

    def _where(self) -> str:
        reading = self.reading
        return "-" if reading is None else f"{reading.cursor}, last {[e['event'] for e in reading.events[-3:]]}"


class Tab:
    """One WebSocket; a task gives each frame to its request."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, user_id: str) -> None:
        self.socket = socket
        self.user_id = user_id
        self.requests: dict[str, Request] = {}
        self.failure: BaseException | None = None
        self.closed = asyncio.Event()
        self._count = 0
        self._task = asyncio.create_task(self._read(), name="tab")

    async def send(self, kind: str, request_id: str | None = None, **payload: Any) -> Request:
        """Send a frame; its answers come to the result."""
        self._count += 1
        request_id = request_id or f"{kind}-{self._count}"
        request = Request(self, request_id)
        if (live := self.requests.get(request_id)) is not None:
            request.before = live
        self.requests[request_id] = request
        if kind in ("resume", "watch"):
            request.reading = Reading(payload.get("after_event_id") or 0)
        await self.socket.send_json({"type": kind, "request_id": request_id, "payload": payload})
        return request

    async def start(self, content: str, session_id: str | None = None, **payload: Any) -> Request:
        """Start a turn and wait for its acknowledgement."""
        if session_id is not None:
            payload["session_id"] = session_id
        request = await self.send("start", content=content, user_id=self.user_id, **payload)
        await request.acked()
        return request

    async def watch(self, session_id: str, after: int = 0) -> Request:
        request = await self.send("watch", session_id=session_id, after_event_id=after)
        await request.acked()
        return request

    async def resume(self, session_id: str, after: int = 0) -> Request:
        request = await self.send("resume", session_id=session_id, after_event_id=after)
        await request.acked()
        return request

    async def cancel(self, target: Request | None = None, **payload: Any) -> dict[str, Any]:
        """The receipt of a cancel, of a request or of what the payload says."""
        return await (await self.send_cancel(target, **payload)).acked()

    async def send_cancel(self, target: Request | None = None, **payload: Any) -> Request:
        if target is not None:
            payload["request_id"] = target.request_id
        self._count += 1
        request = self.requests[f"cancel-{self._count}"] = Request(self, f"cancel-{self._count}")
        await self.socket.send_json({"type": "cancel", "request_id": request.request_id, "payload": payload})
        return request

    async def close(self) -> None:
        await self.socket.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _read(self) -> None:
        try:
            async for message in self.socket:
                frame = json.loads(message.data)
                request = self.requests.get(frame.get("request_id"))
                if request is None:
                    assert frame["type"] == "ready", frame
                    continue
                if frame["type"] == "ack" and request.reading is None:
                    after = frame["payload"].get("after_event_id")
                    request.reading = Reading(after or 0, turn_id=frame["payload"].get("turn_id"))
                request.receive(frame)
        except Exception as error:
            self.failure = error
        finally:
            self.closed.set()
            for request in self.requests.values():
                request.changed.set()


class Client:
    """One user with an HTTP session."""

    def __init__(self, http: aiohttp.ClientSession, url: str, user_id: str) -> None:
        self.http = http
        self.url = url
        self.user_id = user_id
        self.tabs: list[Tab] = []

    def at(self, url: str) -> Client:
        """The same user at another gateway."""
        client = Client(self.http, url, self.user_id)
        client.tabs = self.tabs
        return client

    async def tab(self, **options: Any) -> Tab:
        socket = await self.http.ws_connect(f"{self.url}/wunder/ws", max_msg_size=0, **options)
        tab = Tab(socket, self.user_id)
        self.tabs.append(tab)
        return tab

    async def ask(self, content: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """POST /wunder without streaming."""
        body = {"question": content, "user_id": self.user_id, "stream": False, **body}
        async with self.http.post(f"{self.url}/wunder", json=body) as response:
            return response.status, await response.json()

    async def session(self, session_id: str) -> dict[str, Any]:
        """The session with all its messages."""
        async with self.http.get(f"{self.url}/wunder/chat/sessions/{session_id}?limit=500") as response:
            assert response.status == 200, await response.text()
            return dict((await response.json())["data"])

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        return list((await self.session(session_id))["messages"])

    async def cancel(self, session_id: str, turn_id: str | None = None) -> dict[str, Any]:
        url = f"{self.url}/wunder/chat/sessions/{session_id}/cancel"
        async with self.http.post(url, json={"turn_id": turn_id} if turn_id else {}) as response:
            assert response.status == 200, await response.text()
            return dict((await response.json())["data"])

    async def delete(self, session_id: str) -> int:
        async with self.http.delete(f"{self.url}/wunder/chat/sessions/{session_id}") as response:
            return response.status

    async def page(self, session_id: str, after: int, limit: int = 1000) -> Reading:
        """The events page after a cursor, to its end."""
        reading = Reading(after)
        while True:
            url = f"{self.url}/wunder/chat/sessions/{session_id}/events?after={reading.cursor}&limit={limit}"
            async with self.http.get(url) as response:
                assert response.status == 200, await response.text()
                events = (await response.json())["data"]["events"]
            for event in events:
                reading.take(event)
            if len(events) < limit:
                return reading

    async def sse(self, session_id: str, after: int) -> Reading:
        """GET resume, to the end of the response."""
        reading = Reading(after)
        url = f"{self.url}/wunder/chat/sessions/{session_id}/resume?after_event_id={after}"
        async with self.http.get(url) as response:
            assert response.status == 200, await response.text()
            async for event in sse_events(response):
                reading.take(event)
        return reading

    async def close(self) -> None:
        for tab in self.tabs:
            await tab.close()


async def sse_events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The events of a response, as frames have them."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields and "id" in fields:
            yield {"event": fields["event"], "id": int(fields["id"]), "data": json.loads(fields["data"])}
        elif "data" in fields:
            raise AssertionError(f"the stream ended with an error: {fields['data']}")
        fields = {}
