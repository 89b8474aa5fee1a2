"""WebSockets of the client, over picows: frames are put aside with their time, and looked into later."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from scripts.benchmarks.plan import API_KEY, Plan
from scripts.benchmarks.readings import EventBody, Reading, SeenEvent

_HEAD = b'{"type":"event","request_id":"'
_START = len(_HEAD)
_TERMINAL = b'"event":"turn_terminal"'
_now = time.monotonic_ns


class _Payload(msgspec.Struct):
    event: str
    id: int
    data: EventBody


class _EventFrame(msgspec.Struct):
    payload: _Payload


_events = msgspec.json.Decoder(_EventFrame)


class Socket(WSListener):
    """One connection with any number of turns, told apart by request id."""

    def __init__(self) -> None:
        self._readings: dict[bytes, Reading] = {}
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: WSTransport

    @classmethod
    async def open(cls, plan: Plan) -> Socket:
        """Connect and wait for `ready`."""
        headers = {"X-API-Key": API_KEY}
        url = f"ws://{plan.host}/wunder/ws"
        _, socket = await ws_connect(cls, url, extra_headers=headers, websocket_handshake_timeout=30)
        async with asyncio.timeout(30):
            await socket._opened
        return socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for reading in self._readings.values():
            reading.end("the connection was closed")
        if not self._opened.done():
            self._opened.set_exception(ConnectionError("closed before it was ready"))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = _now()
        data = frame.get_payload_as_bytes()
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        elif data.startswith(_HEAD):
            reading = self._readings.get(data[_START : data.index(b'"', _START)])
            if reading is not None:
                reading.raw.append((now, data))
                if data.find(_TERMINAL, _START, 256) > 0:
                    reading.ended_ns = now
                    self._readings.pop(reading.request_id.encode(), None)
                    reading.end()
        else:
            self._answer(now, msgspec.json.decode(data))

    def start(self, reading: Reading, user_id: str) -> None:
        """Ask for a turn."""
        self._readings[reading.request_id.encode()] = reading
        payload = {"content": reading.script.text(), "user_id": user_id, "session_id": reading.session_id}
        reading.sent_ns = _now()
        self._send("start", reading.request_id, payload)

    def cancel(self, reading: Reading) -> None:
        """Cancel a turn of this connection."""
        reading.cancel_sent_ns = _now()
        self._send("cancel", f"cancel-{reading.request_id}", {"request_id": reading.request_id})

    def close(self) -> None:
        self.transport.disconnect()

    def _send(self, type_: str, request_id: str, payload: dict[str, Any]) -> None:
        kept = {name: value for name, value in payload.items() if value is not None}
        frame = msgspec.json.encode({"type": type_, "request_id": request_id, "payload": kept})
        self.transport.send(WSMsgType.TEXT, frame)

    def _answer(self, now: int, frame: dict[str, Any]) -> None:
        payload, request_id = frame.get("payload") or {}, frame.get("request_id") or ""
        reading = self._readings.get(request_id.removeprefix("cancel-").encode())
        if frame["type"] == "ready" and not self._opened.done():
            self._opened.set_result(None)
        elif reading is None:
            return
        elif frame["type"] == "error":
            self._readings.pop(reading.request_id.encode(), None)
            reading.end(f"{payload.get('code')}: {payload.get('message')}")
        elif request_id.startswith("cancel-"):
            reading.cancel_answered_ns, reading.cancel_status = now, str(payload.get("status"))
        elif frame["type"] == "ack":
            reading.accepted_ns, reading.after = now, payload["after_event_id"]
            reading.session_id, reading.turn_id = payload["session_id"], payload["turn_id"]


def socket_events(reading: Reading) -> list[SeenEvent]:
    """The frames of a reading as events."""
    seen = []
    for read_ns, data in reading.raw:
        payload = _events.decode(data).payload
        seen.append(SeenEvent(read_ns, payload.event, payload.id, payload.data))
    return seen
