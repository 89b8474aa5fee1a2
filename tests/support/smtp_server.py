"""A small SMTP server: takes messages, or says no as it is told; no TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import Message
from typing import Literal

Mood = Literal["ok", "busy", "no such user", "gone"]


class SmtpServer:
    """`messages` are those that were taken."""

    def __init__(self) -> None:
        self.mood: Mood = "ok"
        self.messages: list[Message] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SmtpServer]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 local\r\n")
        with contextlib.suppress(ConnectionError):
            while line := (await reader.readline()).decode().strip():
                answer = await self._answer(line.upper(), reader, writer)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def _answer(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        if line.startswith("EHLO"):
            return b"250-local\r\n250 8BITMIME\r\n"
        if line.startswith("RCPT"):
            answers = {"busy": b"451 try again later\r\n", "no such user": b"550 no such user\r\n"}
            return answers.get(self.mood, b"250 fine\r\n")
        if line == "DATA":
            writer.write(b"354 go on\r\n")
            data = await reader.readuntil(b"\r\n.\r\n")
            if self.mood == "gone":
                return None
            self.messages.append(message_from_bytes(data[:-5]))
            return b"250 queued as 1\r\n"
        return b"221 bye\r\n" if line == "QUIT" else b"250 fine\r\n"
