"""The streams of the fake upstream: one timer wheel, and per stream the writing of stamped deltas and faults."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tests.support.upstream_script import Script

if TYPE_CHECKING:
    from tests.support.upstream import Connection

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n%s\r\n"
_BEFORE = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{"index":0,"delta":'
_AFTER = b',"finish_reason":null}]}'
_PLAIN = b"%x\r\n" + _BEFORE + b'{"content":"%s"}' + _AFTER + b"\n\n\r\n"
_PLAIN_BYTES = len(_BEFORE + b'{"content":""}' + _AFTER + b"\n\n")
_END = b"0\r\n\r\n"
_BURST = 64


class Wheel:
    """Calls streams when they are due, all of a tick together; sleeps while there are none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._slots: dict[int, list[Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._slot = 0
        self.deltas = 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        slot = max(int(when / self._tick_s), self._slot + 1)
        self._slots.setdefault(slot, []).append(call)
        if self._timer is None:
            self._slot = min(slot, int(self._loop.time() / self._tick_s))
            self._arm()

    def close(self) -> None:
        self._slots.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._timer = self._loop.call_at((self._slot + 1) * self._tick_s, self._turn)

    def _turn(self) -> None:
        now = int(self._loop.time() / self._tick_s)
        first, self._slot = self._slot, now
        for slot in range(first, now + 1):
            for call in self._slots.pop(slot, ()):
                call()
        if self._slots:
            self._arm()
        else:
            self._timer = None


class Stream:
    """One answer under way."""

    def __init__(
        self,
        connection: Connection,
        wheel: Wheel,
        script: Script,
        tools: list[dict[str, Any]],
        chance: random.Random,
    ) -> None:
        self._connection = connection
        self._wheel = wheel
        self._script = script
        self._tools = tools
        self._period_s = 1 / script.rate if script.rate else 0.0
        self._phase = chance.random() if script.spread else 0.0
        self._eol = b"\r\n\r\n" if script.crlf else b"\n\n"
        self._words = _words(script.text)
        self._count = 0 if tools else (len(self._words) or script.deltas)
        self._sent = -script.reasoning
        self._due = 0.0
        self._stopped = False
        odd = script.fault or script.crlf or script.split or script.comments or script.text or not script.rate
        self._plain = not odd

    def start(self) -> None:
        script = self._script
        if script.fault == "not_http":
            self._write_raw(b"220 smtp.example.com ESMTP\r\n")
            return
        if script.fault == "hang":
            return
        kind = {"html": b"text/html", "json_error": b"application/json", "json_answer": b"application/json"}
        extra = b"Content-Encoding: gzip\r\n" if script.fault == "gzip" else b""
        self._write_raw(_HEAD % (kind.get(script.fault, b"text/event-stream; charset=utf-8"), extra))
        self._due = asyncio.get_running_loop().time() + script.first_ms / 1000 + self._phase * self._period_s
        if script.first_ms or self._period_s:
            self._wheel.at(self._due, self.step)
        else:
            self.step()

    def stop(self) -> None:
        self._stopped = True

    def step(self) -> None:
        """The next delta (or a burst of them), the fault, or the end."""
        if self._stopped:
            return
        if self._plain and 0 <= self._sent < self._count:
            self._sent += 1
            self._wheel.deltas += 1
            text = (b"@%d " % time.monotonic_ns()).ljust(self._script.bytes, b"x")
            self._connection.transport.write(_PLAIN % (_PLAIN_BYTES + len(text), text))
            self._due += self._period_s
            self._wheel.at(self._due, self.step)
            return
        for _ in range(1 if self._period_s else _BURST):
            if self._script.fault and self._sent >= self._script.after:
                self._break()
                return
            if self._sent >= self._count:
                self._finish()
                return
            self._delta()
        if self._period_s:
            self._due += self._period_s
            self._wheel.at(self._due, self.step)
        else:
            asyncio.get_running_loop().call_soon(self.step)

    def _delta(self) -> None:
        number, script = self._sent, self._script
        self._sent += 1
        if number < 0:
            self._chunk(b'{"reasoning_content":"thought%d "}' % number)
            return
        if self._words:
            self._chunk(msgspec.json.encode({"content": self._words[number]}))
            return
        text = b"@%d " % time.monotonic_ns()
        self._wheel.deltas += 1
        self._chunk(b'{"content":"%s"}' % text.ljust(script.bytes, b"x"))

    def _chunk(self, delta: bytes) -> None:
        if self._script.comments:
            self._write(b": comment" + self._eol + b"event: message" + self._eol[: len(self._eol) // 2])
        self._write(_BEFORE + delta + _AFTER + self._eol)

    def _finish(self) -> None:
        for index, tool in enumerate(self._tools):
            self._tool(index, tool)
        reason = self._script.finish or ("tool_calls" if self._tools else "stop")
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": self._count}}
        out = b"".join(b"data: " + msgspec.json.encode(chunk) + self._eol for chunk in (end, usage))
        self._write(out + (b"data: [DONE]" + self._eol if self._script.done else b""))
        self._close_stream()

    def _tool(self, index: int, tool: dict[str, Any]) -> None:
        arguments = tool.get("arguments", {})
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        half = len(text) // 2
        head = {"name": tool["name"], "arguments": ""}
        call_id = f"call_{index}_{self._wheel.deltas}"
        self._calls({"index": index, "id": call_id, "type": "function", "function": head})
        for piece in (text[:half], text[half:]):
            self._calls({"index": index, "function": {"arguments": piece}})

    def _calls(self, part: dict[str, Any]) -> None:
        self._chunk(msgspec.json.encode({"tool_calls": [part]}))

    def _break(self) -> None:
        match self._script.fault:
            case "silence":
                pass
            case "chatter":
                self._write(b": still here\n\n")
                self._wheel.at(asyncio.get_running_loop().time() + 0.005, self.step)
            case "truncated":
                self._close_stream()
            case "reset":
                sock = self._connection.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._connection.transport.abort()
            case "cut":
                self._write_raw(b"ffff\r\ndata: {")
                self._connection.transport.close()
            case "huge_line":
                self._write(b"data: " + b"x" * (1 << 16)) if self._sent == self._script.after else None
                self._endless(b"x" * (1 << 16))
            case "flood":
                self._endless((_BEFORE + b'{"content":"' + b"y" * 60_000 + b'"}' + _AFTER + b"\n\n") * 4)
            case other:
                self._write(_BAD[other])
                self._close_stream()

    def _endless(self, piece: bytes) -> None:
        self._sent += 1
        if self._connection.transport.get_write_buffer_size() < 1 << 20:
            self._write(piece)
        self._wheel.at(0, self.step)

    def _close_stream(self) -> None:
        self._stopped = True
        self._write_raw(_END)
        self._connection.finished()

    def _write(self, data: bytes) -> None:
        if self._script.split:
            for i in range(len(data)):
                self._write_raw(b"1\r\n%s\r\n" % data[i : i + 1])
        else:
            self._write_raw(b"%x\r\n%s\r\n" % (len(data), data))

    def _write_raw(self, data: bytes) -> None:
        if not self._connection.transport.is_closing():
            self._connection.transport.write(data)


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split()]


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


_BAD: dict[str, bytes] = {
    "bad_utf8": _BEFORE + b'{"content":"\xff\xfe"}' + _AFTER + b"\n\n",
    "bad_json": b'data: {"choices": [{"delta": {"content": \n\n',
    "not_chunk": b'data: {"choices": 5}\n\n',
    "surrogate": _BEFORE + b'{"content":"\\ud800"}' + _AFTER + b"\n\n",
    "bomb": b'data: {"choices": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n\n",
    "skipped_bomb": b'data: {"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n\n",
    "error_event": _event({"error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "refused_event": _event({"error": {"type": "invalid_request_error", "message": "no, sk-verysecretkey is bad"}}),
    "odd_event": _event({"error": "something odd"}),
    "html": b"<html>login here</html>",
    "json_error": msgspec.json.encode({"error": {"type": "server_error", "message": "it broke"}}),
    "json_answer": msgspec.json.encode({"choices": [{"message": {"content": "not streamed"}}]}),
    "gzip": b"\x1f\x8b\x08\x00whatever",
    "nameless_tool": _BEFORE + b'{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}' + _AFTER + b"\n\n"
    b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\n',
}
