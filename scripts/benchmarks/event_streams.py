"""Server-sent events of the client: one keep-alive connection per stream; bytes are put aside with their time."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import msgspec

from scripts.benchmarks.plan import API_KEY, Plan
from scripts.benchmarks.readings import EventBody, Reading, SeenEvent

_LAST_CHUNK = b"0\r\n\r\n"
_now = time.monotonic_ns
_bodies = msgspec.json.Decoder(EventBody)


class EventStreamClient(asyncio.Protocol):
    """POST /wunder, one turn at a time."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._reading: Reading | None = None
        self.transport: asyncio.Transport

    @classmethod
    async def open(cls, plan: Plan) -> EventStreamClient:
        host, _, port = plan.host.rpartition(":")
        _, client = await asyncio.get_running_loop().create_connection(lambda: cls(plan.host), host, int(port))
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reading is not None:
            self._reading.end("the connection was closed")

    def data_received(self, data: bytes) -> None:
        now = _now()
        reading = self._reading
        if reading is None:
            return
        if not reading.raw:
            reading.accepted_ns = now
        reading.raw.append((now, bytes(data)))
        if data.endswith(_LAST_CHUNK):
            reading.ended_ns = now
            self._reading = None
            reading.end()
        elif len(reading.raw) == 1 and not data.startswith(b"HTTP/1.1 200"):
            self._reading = None
            reading.end(data.partition(b"\r\n\r\n")[2].decode(errors="replace")[:200] or "not 200")

    def start(self, reading: Reading, user_id: str) -> None:
        """Ask for a turn."""
        self._reading = reading
        body = {"question": reading.script.text(), "user_id": user_id}
        if reading.session_id is not None:
            body["session_id"] = reading.session_id
        data = msgspec.json.encode(body)
        head = (
            f"POST /wunder HTTP/1.1\r\nHost: {self._host}\r\nX-API-Key: {API_KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        reading.sent_ns = _now()
        self.transport.write(head.encode() + data)

    def cancel(self, reading: Reading) -> None:
        raise NotImplementedError("cancels are measured over WebSockets")

    def close(self) -> None:
        self.transport.close()


def stream_events(reading: Reading) -> list[SeenEvent]:
    """The bytes of a reading as events: head off, chunks joined, cut at blank lines."""
    seen: list[SeenEvent] = []
    body = b""
    chunked = _Chunks()
    for read_ns, data in reading.raw:
        body += chunked.feed(data)
        *blocks, body = body.split(b"\n\n")
        seen.extend(event for block in blocks if (event := _event(read_ns, block)) is not None)
    if seen:
        reading.session_id = seen[0].body.session_id
        reading.turn_id = seen[0].body.turn_id
    return seen


class _Chunks:
    """Takes a response's bytes, gives its body's."""

    def __init__(self) -> None:
        self._rest = b""
        self._in_body = False

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        if not self._in_body:
            _, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return b""
            self._in_body, self._rest = True, rest
        body = b""
        while True:
            size, found, rest = self._rest.partition(b"\r\n")
            if not found or len(rest) < int(size, 16) + 2:
                return body
            body += rest[: int(size, 16)]
            self._rest = rest[int(size, 16) + 2 :]


def _event(read_ns: int, block: bytes) -> SeenEvent | None:
    fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
    if b"id" not in fields:
        return None
    return SeenEvent(read_ns, fields[b"event"].decode(), int(fields[b"id"]), _bodies.decode(fields[b"data"]))
