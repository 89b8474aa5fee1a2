"""One turn over a WebSocket that may break: started once, resumed as often as needed, each event given once.

connect ─► start (with an idempotency key) ─► ack ─► events ... ─► turn_terminal
   ▲            │ cut before the ack:                  │ cut after it:
   └────────────┴─ the same start again                └─ resume after the last event seen
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from actors.errors import ServiceUnavailable
from gateway.cli.api import Refused, Unreachable, reason, refusal
from gateway.errors import AuthRequired

TERMINAL = "turn_terminal"
_MARKERS = frozenset({"gap", "rewind"})
_FINAL_CLOSES = {1008: "the server closed the connection", 1009: "the message is too large"}
_TOKEN_ENDED = 4401
_MAX_FRAME_BYTES = 16 * 1024 * 1024
_MOST_ATTEMPTS = 12
_LONGEST_PAUSE_S = 5.0


class Accepted(msgspec.Struct, frozen=True):
    """The turn is durable."""

    session_id: str
    turn_id: str
    queued: bool
    position: int


class TurnEvent(msgspec.Struct, frozen=True):
    """An event of the turn (or a `gap`); `data` is its own part."""

    event: str
    id: int
    data: dict[str, Any]


class Cut(msgspec.Struct, frozen=True):
    """The connection is gone; the next try comes in `delay_s`."""

    reason: str
    delay_s: float


Item = Accepted | TurnEvent | Cut


class _Lost(Exception):
    """This connection cannot go on, another one can."""


class TurnClient:
    """Asks one question. Iterate `run()`; `cancel()` may be called meanwhile, more than once."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        token: str,
        content: str,
        *,
        session_id: str | None = None,
        model: str | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._url = url
        self._token = token
        self._pause = pause
        self._start: dict[str, Any] = {"content": content, "idempotency_key": uuid.uuid4().hex}
        if session_id:
            self._start["session_id"] = session_id
        if model:
            self._start["model_name"] = model
        self._accepted: Accepted | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._requests = 0
        self._request_id = ""
        self._cursor = 0
        self._cancelled = False

    async def run(self) -> AsyncIterator[Item]:
        """What happens, until the turn has ended."""
        failures, connected = 0, False
        while True:
            try:
                async with self._connect() as socket:
                    connected = True
                    async for item in self._talk(socket):
                        failures = 0
                        yield item
                        if isinstance(item, TurnEvent) and item.event == TERMINAL:
                            return
                why = _closed(socket)
            except _Lost as lost:
                why = str(lost)
            except (aiohttp.ClientError, TimeoutError) as error:
                if not connected and isinstance(error, aiohttp.ClientConnectorError):
                    raise Unreachable(f"cannot reach {self._url}: {reason(error)}") from None
                why = _handshake(error)
            failures += 1
            if failures > _MOST_ATTEMPTS:
                raise ServiceUnavailable(f"gave up after {failures} tries: {why}")
            delay_s = min(0.1 * 2**failures, _LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311
            yield Cut(why, delay_s)
            await self._pause(delay_s)

    async def cancel(self) -> None:
        """Ask for the turn to be cancelled, now or as soon as it is accepted."""
        self._cancelled = True
        accepted, socket = self._accepted, self._socket
        if accepted is None or socket is None or socket.closed:
            return
        payload = {"session_id": accepted.session_id, "turn_id": accepted.turn_id}
        try:
            await self._send(socket, "cancel", payload)
        except ConnectionError:
            return  # noticed by the reader too, which asks again after the next connect

    def _connect(self) -> Any:
        return self._http.ws_connect(
            f"{self._url}/wunder/chat/ws",
            headers={"Authorization": f"Bearer {self._token}"},
            heartbeat=20,
            max_msg_size=_MAX_FRAME_BYTES,
        )

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[Accepted | TurnEvent]:
        self._socket = socket
        try:
            if self._accepted is None:
                self._request_id = await self._send(socket, "start", self._start)
            else:
                await self._resume(socket)
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    item = await self._receive(socket, message.json())
                    if item is not None:
                        yield item
        except ConnectionError as error:
            raise _Lost(reason(error)) from None
        finally:
            self._socket = None

    async def _resume(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        assert self._accepted is not None  # noqa: S101 - only after the ack
        payload = {"session_id": self._accepted.session_id, "after_event_id": self._cursor}
        self._request_id = await self._send(socket, "resume", payload)
        if self._cancelled:
            await self.cancel()

    async def _receive(
        self, socket: aiohttp.ClientWebSocketResponse, frame: dict[str, Any]
    ) -> Accepted | TurnEvent | None:
        if frame.get("request_id") != self._request_id:
            return None  # `ready`, and receipts of cancels
        payload = frame.get("payload") or {}
        match frame.get("type"):
            case "ack" if self._accepted is None:
                return await self._ack(payload)
            case "error":
                raise _refused(payload)
            case "event":
                return await self._event(socket, payload)
        return None

    async def _ack(self, payload: dict[str, Any]) -> Accepted:
        self._cursor = int(payload.get("after_event_id", 0))
        self._accepted = Accepted(
            session_id=payload["session_id"],
            turn_id=payload["turn_id"],
            queued=bool(payload.get("queued")),
            position=int(payload.get("position", 0)),
        )
        if self._cancelled:
            await self.cancel()
        return self._accepted

    async def _event(self, socket: aiohttp.ClientWebSocketResponse, payload: dict[str, Any]) -> TurnEvent | None:
        """The event, if it is new and of this turn."""
        envelope, kind, number = payload.get("data") or {}, str(payload["event"]), int(payload["id"])
        if number <= self._cursor and kind not in _MARKERS:
            return None
        self._cursor = number
        turn_id = envelope.get("turn_id")
        if turn_id and self._accepted is not None and turn_id != self._accepted.turn_id:
            if kind == TERMINAL:  # a resume follows one turn: ours was waiting behind that one
                await self._resume(socket)
            return None
        return TurnEvent(kind, number, envelope.get("data") or {})

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, kind: str, payload: dict[str, Any]) -> str:
        self._requests += 1
        request_id = f"{kind}-{self._requests}"
        await socket.send_json({"type": kind, "request_id": request_id, "payload": payload})
        return request_id


def _refused(payload: dict[str, Any]) -> Exception:
    """An `error` frame: a reason to connect again, or the end."""
    error = refusal(int(payload.get("status") or 500), payload)
    if payload.get("code") == ServiceUnavailable.code:
        return _Lost(error.message)
    return error


def _closed(socket: aiohttp.ClientWebSocketResponse) -> str:
    """Why the server closed; raises if coming back cannot help."""
    code = socket.close_code
    if code == _TOKEN_ENDED:
        raise AuthRequired("you have been signed out")
    if code in _FINAL_CLOSES:
        raise Refused(_FINAL_CLOSES[code], detail={"code": "", "status": code})
    return f"connection closed ({code})"


def _handshake(error: BaseException) -> str:
    """Why connecting failed; raises if trying again cannot help."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        if error.status == AuthRequired.status:
            raise AuthRequired("the token is not valid (any more)")
        if error.status < 500 and error.status not in {408, 429}:
            raise Refused(f"the server refuses the connection ({error.status})", detail={"status": error.status})
        return f"the server answered {error.status}"
    return reason(error)
