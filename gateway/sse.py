"""Server-sent events: one response follows one session."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from actors.clock import Clock
from actors.errors import WunderError
from actors.replies import Event
from gateway.auth import Principal
from gateway.connections import Connections, bound_send_buffer, unread_bytes
from gateway.http_common import TRACE_ID, error_object
from gateway.out_queue import OutQueue
from gateway.protocol import CloseCode, sse_event
from gateway.settings import GatewaySettings
from gateway.subscriptions import Topic
from gateway.topics import Topics

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store",
    "X-Accel-Buffering": "no",
}
_RETRY = b"retry: 1000\n\n"
_HEARTBEAT = b": keep-alive\n\n"


class EventStream:
    """One open response."""

    kind = "sse"

    def __init__(
        self,
        request: web.Request,
        principal: Principal,
        network: str,
        settings: GatewaySettings,
        clock: Clock,
    ) -> None:
        self.principal = principal
        self.network = network
        self._request = request
        self._settings = settings
        self._clock = clock
        self._code: int | None = None
        self._queue = OutQueue(
            settings.connection_queue_bytes, clock.monotonic_s, unread=lambda: unread_bytes(request.transport)
        )

    def close(self, code: int, reason: str) -> None:
        """End the response; the client comes back by itself (`retry:`) unless its token ended or it was too slow."""
        self._code = code
        if code == CloseCode.TOO_SLOW:
            self._queue.close()
            if self._request.transport is not None:
                self._request.transport.abort()
        self._queue.finish()

    def stalled_s(self) -> float:
        return self._queue.stalled_s()

    async def run(
        self,
        connections: Connections,
        topics: Topics,
        topic: Topic,
        *,
        first: list[Event],
        limits: dict[str, Any],
    ) -> web.StreamResponse:
        """Write `first`, then the topic's events after the cursor in `limits`, until the subscription ends."""
        bound_send_buffer(self._request, self._settings.socket_send_buffer_bytes)
        response = web.StreamResponse(headers=HEADERS)
        subscription = topics.subscribe(topic, self._queue, sse_event, on_end=self._ended, **limits)
        connections.add(self)
        try:
            await connections.look_again(self)
            await response.prepare(self._request)
            self._queue.put(_RETRY)
            for event in first:
                self._queue.put(sse_event(event))
            if self._code is None:
                subscription.start()
            await self._write(response)
            await self._end(response)
        except (ConnectionError, asyncio.CancelledError):
            # The reader left. The turn goes on: closing a stream never cancels it.
            if asyncio.current_task() is not None and self._request.transport is not None:
                raise
        finally:
            connections.remove(self)
            subscription.end()
            self._queue.close()
        return response

    async def _write(self, response: web.StreamResponse) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.sse_heartbeat_s):
                    frames = await self._queue.take()
            except TimeoutError:
                frames = [_HEARTBEAT]
            if not frames:
                return
            data = b"".join(frames)
            self._queue.sending(len(data))
            await response.write(data)
            self._queue.written()

    async def _end(self, response: web.StreamResponse) -> None:
        """The last bytes; a reader that does not take them has no close to wait for."""
        try:
            async with asyncio.timeout(self._settings.slow_client_timeout_s):
                await response.write_eof()
        except ConnectionError:
            return
        except TimeoutError:
            self.close(CloseCode.TOO_SLOW, "too slow")

    def _ended(self, error: WunderError | None) -> None:
        if error is not None:
            body = error_object(error, self._request.get(TRACE_ID, ""), self._clock.now_us())
            self._queue.put(b"event: error\ndata: %b\n\n" % msgspec.json.encode(body))
        self._queue.finish()
