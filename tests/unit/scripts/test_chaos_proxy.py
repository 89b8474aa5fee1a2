"""The proxy of a chaos run: a stalled completion arrives later, also when its sender has gone meanwhile."""

from __future__ import annotations

import asyncio

from scripts.chaos_runs.proxy import End, Gate
from tests.support.facts import eventually, within

COMPLETION = b'... {"status":"succeeded"} ...'

CANCEL = (16).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + bytes(8)


async def test_from_the_next_completion_on_everything_is_held_back_and_comes_in_order() -> None:
    arrived: list[bytes] = []
    ended = asyncio.Event()

    async def database(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            arrived.append(data)
            writer.write(b"answer")
        ended.set()
        writer.close()
        await writer.wait_closed()

    loop, gate = asyncio.get_running_loop(), Gate()
    server = await asyncio.start_server(database, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = await loop.create_server(lambda: End(gate, port), "127.0.0.1", 0)
    async with server, proxy:
        reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        gate.arm()
        writer.write(b"before")
        assert await within(reader.read(100), "an answer while nothing is held back") == b"answer"
        writer.write(COMPLETION)
        await eventually(lambda: gate.stalled, "the completion was seen")
        writer.write(b"after")
        writer.close()
        await writer.wait_closed()
        other, its = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        its.write(b"another connection")
        _, cancels = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        cancels.write(CANCEL)
        await eventually(lambda: len(gate.ends) >= 5, "the other connection is there")
        assert arrived == [b"before"]
        gate.flow()
        await within(ended.wait(), "the sender's end has arrived")
        assert CANCEL not in b"".join(arrived)
        assert b"".join(arrived).replace(b"another connection", b"") == b"before" + COMPLETION + b"after"
        assert await within(other.read(100), "the other connection flows too") == b"answer"
        its.close()
        await its.wait_closed()
        cancels.close()
        await cancels.wait_closed()
        await eventually(lambda: not gate.ends, "the proxy has let go of both")
