"""An answer that is whole ends the round, whatever its server sends after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.cancellation import CancellationToken
from actors.models.base import Completed, ModelPart, ModelRequest
from actors.models.openai import OpenAiModel
from actors.settings import ModelSettings

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
HELLO = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


class Talker(asyncio.Protocol):
    """Answers a request with `answer`, then sends `drip` again and again until the connection is lost."""

    answer, drip = b"", b""
    lost: asyncio.Event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):
            self._transport.write(HEAD + self.answer)
            self._talk()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def _talk(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self.drip)
            asyncio.get_running_loop().call_later(0.005, self._talk)


@pytest.fixture
async def model() -> AsyncIterator[OpenAiModel]:
    Talker.lost = asyncio.Event()
    server = await asyncio.get_running_loop().create_server(Talker, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = ModelSettings(provider="openai", base_url=f"http://127.0.0.1:{port}/v1", retry=0, timeout_s=0.2)
    model = OpenAiModel("m", settings)
    yield model
    await model.close()
    server.close()
    await server.wait_closed()


async def answer(model: OpenAiModel) -> list[ModelPart]:
    request = ModelRequest(messages=[{"role": "user", "content": "hi"}])
    async with asyncio.timeout(10):
        return [part async for part in model.stream(request, CancellationToken())]


@pytest.mark.parametrize("drip", [b"\n", b": still here\n\n", b"data: {}\n\n", HELLO, DONE])
async def test_bytes_after_done_do_not_keep_the_round(
    model: OpenAiModel, monkeypatch: pytest.MonkeyPatch, drip: bytes
) -> None:
    monkeypatch.setattr(Talker, "answer", HELLO + FINISH + USAGE + DONE)
    monkeypatch.setattr(Talker, "drip", drip)
    completed = (await answer(model))[-1]
    assert isinstance(completed, Completed)
    assert (completed.content, completed.usage.input_tokens) == ("hello", 3)
    async with asyncio.timeout(10):
        await Talker.lost.wait()


@pytest.mark.parametrize("drip", [b": still here\n\n", b"data: {}\n\n", USAGE])
async def test_chunks_after_the_finish_reason_do_not_keep_the_round(
    model: OpenAiModel, monkeypatch: pytest.MonkeyPatch, drip: bytes
) -> None:
    monkeypatch.setattr(Talker, "answer", HELLO + FINISH + USAGE)
    monkeypatch.setattr(Talker, "drip", drip)
    completed = (await answer(model))[-1]
    assert isinstance(completed, Completed)
    assert (completed.content, completed.usage.input_tokens, completed.stop_reason) == ("hello", 3, "stop")
    async with asyncio.timeout(10):
        await Talker.lost.wait()
