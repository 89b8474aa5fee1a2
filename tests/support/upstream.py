"""A light fake of an OpenAI-compatible server: `python -m tests.support.upstream --port 0`, or `async with Upstream()`.

Each delta's text begins with its send time, `@<time.monotonic_ns()> `, so that a bench knows its delay (the clock is
one for all processes of a machine). One timer wheel serves all streams; they start at random phases of their period.

Faults (`fault=...`, after `after=` deltas): hang (no head), silence (head, then nothing), chatter (head, then comments
only), truncated (clean end without finish), reset (RST), cut (connection closed inside a chunk), bad_utf8, bad_json,
not_chunk, huge_line, flood (endless deltas), bomb (deep JSON), error_event, refused_event, html, json_error,
json_answer, gzip, not_http, nameless_tool. `status=429,retry_after=0.01,times=2` fails twice, then answers.
GET /stats tells `{"requests", "open", "active", "dropped", "deltas"}`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from tests.support.upstream_script import Script, read_request
from tests.support.upstream_stream import Stream, Wheel

_HEAD_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client's connection; one request at a time."""

    def __init__(self, server: Upstream) -> None:
        self._server = server
        self._buffer = b""
        self.transport: asyncio.Transport
        self.stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self.stream is not None:
            self.stream.stop()
            self.stream = None
            self._server.dropped += 1
        self._server.changed()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(_HEAD_END)
        if not found:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        body, self._buffer = rest[:length], rest[length:]
        self._server.answer(self, head, body)

    def finished(self) -> None:
        self.stream = None
        self._server.changed()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class Upstream:
    """The server. Counters are for tests; `until` waits for a fact about them."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tick_s: float = 0.002, seed: int | None = None) -> None:
        self._host, self._port = host, port
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._faulted: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._tick_s = tick_s
        self.random = random.Random(seed)
        self.connections: set[Connection] = set()
        self.requests = 0
        self.dropped = 0
        self.accepted = 0
        self.last_head = b""
        self.last_body: dict[str, Any] = {}
        self.wheel: Wheel

    async def __aenter__(self) -> Upstream:
        loop = asyncio.get_running_loop()
        self.wheel = Wheel(loop, self._tick_s)
        self._server = await loop.create_server(self._connect, self._host, self._port, backlog=4096)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await self.until(lambda: not self.connections)
        await self._server.wait_closed()
        self.wheel.close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self._port}/v1"

    async def until(self, fact: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until `fact()` is true; looked at whenever a request, a stream or a connection begins or ends."""
        if fact():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((fact, waiter))
        async with asyncio.timeout(timeout_s):
            await waiter

    def changed(self) -> None:
        for fact, waiter in self._waiters:
            if not waiter.done() and fact():
                waiter.set_result(None)
        self._waiters = [(f, w) for f, w in self._waiters if not w.done()]

    def answer(self, connection: Connection, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == b"/stats":
            _send(connection, 200, msgspec.json.encode(self.stats()))
            return
        if not path.endswith(b"/chat/completions"):
            _send(connection, 404, b'{"error":{"message":"no such page","type":"invalid_request_error"}}')
            return
        self.requests += 1
        self.last_head, self.last_body = head, msgspec.json.decode(body)
        request, script, key, answered = read_request(body)
        if script.status or script.fault:
            seen = self._faulted[key] = self._faulted.get(key, 0) + 1
            if seen > script.times:
                script.status, script.fault = 0, ""
        if script.status:
            _send_status(connection, script)
        else:
            tools = script.tools if request.tools and not answered else []
            connection.stream = Stream(connection, self.wheel, script, tools, self.random)
            connection.stream.start()
        self.changed()

    def stats(self) -> dict[str, int]:
        active = sum(c.stream is not None for c in self.connections)
        return {
            "requests": self.requests,
            "accepted": self.accepted,
            "open": len(self.connections),
            "active": active,
            "dropped": self.dropped,
            "deltas": self.wheel.deltas,
        }

    def _connect(self) -> Connection:
        self.accepted += 1
        return Connection(self)


def _send(connection: Connection, status: int, body: bytes, extra: bytes = b"") -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
    connection.transport.write(head % (status, len(body), extra) + body)


def _send_status(connection: Connection, script: Script) -> None:
    kind = {429: "rate_limit_exceeded", 529: "overloaded_error"}.get(script.status, "invalid_request_error")
    body = msgspec.json.encode({"error": {"message": f"scripted {script.status}: {script.text}", "type": kind}})
    extra = f"Retry-After: {script.retry_after}\r\n".encode() if script.retry_after else b""
    _send(connection, script.status, body, extra)


async def _serve(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    cpu = time.process_time()
    async with Upstream(arguments.host, arguments.port, arguments.tick_ms / 1000) as upstream:
        print(upstream.port, flush=True)
        await stopped.wait()
        used = {"cpu_s": round(time.process_time() - cpu, 3), **upstream.stats()}
        print(msgspec.json.encode(used).decode(), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tick-ms", type=float, default=4.0)
    arguments = parser.parse_args()
    try:
        import uvloop

        uvloop.run(_serve(arguments))
    except ImportError:
        asyncio.run(_serve(arguments))


if __name__ == "__main__":
    main()
