"""One WebSocket: many requests, told apart by `request_id`.

reading: frame ─► ClientFrame ─► a handler in a task of its own (a slow one does not hold up the others)
         only while the OutQueue has room: who does not read its answers is not asked for more
writing: subscriptions ─► OutQueue ─► one writer; it never holds up a subscription

OPEN ──close()──► CLOSING (what is queued is written, then the close frame) ──► CLOSED
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

import msgspec
from aiohttp import WSMsgType, web

from actors.clock import Clock, isoformat
from actors.errors import InvalidRequest, WunderError
from actors.logs import log
from gateway.auth import Principal
from gateway.connections import bound_send_buffer, unread_bytes
from gateway.credentials import SUBPROTOCOL
from gateway.errors import RateLimited
from gateway.http_common import decode_json, error_object
from gateway.out_queue import OutQueue
from gateway.protocol import PROTOCOL_VERSION, ClientFrame, CloseCode, frame
from gateway.rate_limit import Pace
from gateway.requests import Requests
from gateway.settings import GatewaySettings

_CLOSE_TIMEOUT_S = 2.0
_decoder = msgspec.json.Decoder(ClientFrame)


class State(Enum):
    """Where a connection stands."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class _Socket(web.WebSocketResponse):
    """Takes a reader that still takes bytes for alive: our ping is behind what it has not read yet."""

    arrived: Callable[[], int] = staticmethod(lambda: 0)
    _arrived_before = 0

    def _pong_not_received(self) -> None:
        arrived = self.arrived()
        if arrived > self._arrived_before:
            self._arrived_before = arrived
            self._reset_heartbeat()
        else:
            super()._pong_not_received()


class WebSocketConnection:
    """One client's socket."""

    kind = "websocket"

    def __init__(
        self, principal: Principal, network: str, settings: GatewaySettings, clock: Clock, trace_id: str
    ) -> None:
        self.principal = principal
        self.network = network
        self.connection_id = clock.new_id("conn")
        self._settings = settings
        self._clock = clock
        self._trace_id = trace_id
        self._state = State.OPEN
        self._close_code: int = CloseCode.GOING_AWAY
        self._close_reason = ""
        self._handlers: set[asyncio.Task[None]] = set()
        self._socket = _Socket(
            heartbeat=settings.heartbeat_s,
            max_msg_size=settings.max_message_bytes,
            compress=False,
            protocols=(SUBPROTOCOL,),
            autoping=True,
            timeout=_CLOSE_TIMEOUT_S,
        )
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Task[None] | None = None
        self.queue = OutQueue(
            settings.connection_queue_bytes, clock.monotonic_s, unread=lambda: unread_bytes(self._transport)
        )
        self._socket.arrived = lambda: self.queue.arrived
        self._pace = Pace(clock.monotonic_s, rate_per_minute=settings.messages_per_minute, burst=settings.message_burst)

    def close(self, code: int, reason: str) -> None:
        """Write what is queued, then close with this code (a reader that is too slow is cut off)."""
        if self._state is not State.CLOSED and code == CloseCode.TOO_SLOW:
            self.queue.close()  # whatever else it was being closed for: it does not take that either
            if self._transport is not None:
                self._transport.abort()
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._close_code, self._close_reason = code, reason
            self.queue.finish()

    def stalled_s(self) -> float:
        return self.queue.stalled_s()

    async def run(self, request: web.Request, requests: Requests) -> web.WebSocketResponse:
        """Serve the socket until either side closes it."""
        bound_send_buffer(request, self._settings.socket_send_buffer_bytes)
        await self._socket.prepare(request)
        self._transport = request.transport
        if self._state is State.OPEN:
            self.queue.put(self._ready())
        self._reader = asyncio.create_task(self._read(requests), name=f"ws-read-{self.connection_id}")
        try:
            await self._write(requests)
        finally:
            self._state = State.CLOSED
            self.queue.close()
            requests.end()
            for task in [self._reader, *self._handlers]:
                task.cancel()
            await asyncio.gather(self._reader, *self._handlers, return_exceptions=True)
        return self._socket

    async def _write(self, requests: Requests) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(self._settings.sse_heartbeat_s):
                        frames = await self.queue.take()
                except TimeoutError:
                    requests.heartbeat()
                    continue
                if not frames:
                    break
                for data in frames:
                    self.queue.sending(len(data))
                    await self._socket.send_frame(data, WSMsgType.TEXT)
                    self.queue.written(len(data))
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._socket.close(code=self._close_code, message=self._close_reason.encode(), drain=False)
        except (ConnectionError, TimeoutError):
            # The reader left; its turns go on.
            return

    async def _read(self, requests: Requests) -> None:
        try:
            async for message in self._socket:
                debt = self._pace.take()
                if debt >= 1:
                    self.close(CloseCode.POLICY, "too many messages")
                elif message.type is WSMsgType.TEXT:
                    self._receive(message.data, requests, too_fast=debt > 0)
                elif message.type is WSMsgType.BINARY:
                    wrong = InvalidRequest("expected a text frame with JSON, got a binary frame")
                    self.send_error(self._too_fast() if debt else wrong, None)
                await self.queue.writable()
        finally:
            self.queue.finish()

    def _receive(self, text: str, requests: Requests, *, too_fast: bool) -> None:
        if self._state is not State.OPEN:
            return
        request_id: str | None = None
        try:
            received = decode_frame(text)
            request_id = received.request_id
            if too_fast:
                raise self._too_fast()
            if len(self._handlers) >= self._settings.max_subscriptions_per_connection:
                raise RateLimited("too many requests at once on this connection")
            handler = requests.handler(received)
        except WunderError as error:
            self.send_error(error, request_id)
            return
        task = asyncio.create_task(self._handle(handler, request_id), name=f"ws-{received.type}")
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    def _too_fast(self) -> RateLimited:
        return RateLimited("too many messages on this connection", retry_after_s=self._pace.wait_s)

    async def _handle(self, handler: object, request_id: str | None) -> None:
        try:
            await handler  # type: ignore[misc]
        except WunderError as error:
            self.send_error(error, request_id)
        except Exception as error:
            log.exception("ws_request_failed", error, trace_id=self._trace_id)
            self.send_error(WunderError("internal error"), request_id)

    def send_error(self, error: WunderError, request_id: str | None) -> None:
        """Tell the client what went wrong with a request (or, without an id, with a frame)."""
        payload = error_object(error, self._trace_id, self._clock.now_us())
        self.queue.put(frame("error", request_id, payload))

    def _ready(self) -> bytes:
        settings = self._settings
        payload = {
            "connection_id": self.connection_id,
            "server_time": isoformat(self._clock.now_us()),
            "protocol": {"version": PROTOCOL_VERSION, "min": PROTOCOL_VERSION, "max": PROTOCOL_VERSION},
            "policy": {
                "max_message_bytes": settings.max_message_bytes,
                "queue_bytes": settings.connection_queue_bytes,
                "max_requests": settings.max_subscriptions_per_connection,
                "heartbeat_s": settings.heartbeat_s,
            },
            "features": {"multiplex": True, "resume": True, "watch": True, "ping_pong": True},
        }
        return frame("ready", None, payload)


def decode_frame(text: str) -> ClientFrame:
    """A client's frame; `InvalidRequest` says what was expected."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return decode_json(text.encode("utf-8", "replace"), ClientFrame)
