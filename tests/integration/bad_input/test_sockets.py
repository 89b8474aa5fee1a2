"""Sockets that say nothing, half a request, or nothing more; and too many of them from one address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.bad_input.world import KEY, World, running_world
from tests.support.facts import within

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def socket(world: World) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    url = urlsplit(world.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await within(reader.readuntil(b"\r\n\r\n"), "a response")


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
async def test_a_request_without_an_end_of_its_head(tmp_path: Path, sent: bytes) -> None:
    async with running_world(tmp_path, gateway={"auth_timeout_s": 0.2}) as world, socket(world) as (reader, writer):
        writer.write(sent)
        assert await within(reader.read(), "the socket is closed") == b""


async def test_a_socket_on_which_requests_come_outlives_the_time_for_a_head(tmp_path: Path) -> None:
    async with running_world(tmp_path, gateway={"auth_timeout_s": 0.2}) as world, socket(world) as (reader, writer):
        lobby = next(iter(world.cluster.gateways.values()))._lobby
        writer.write(HEALTH)
        assert (await head(reader)).startswith(b"HTTP/1.1 200")
        async with socket(world) as (silent, _):
            assert await within(silent.read(), "a silent one is closed") == b""
        await lobby.run_once()
        writer.write(HEALTH)
        assert b"HTTP/1.1 200" in await head(reader)


async def test_a_socket_that_is_kept_open_for_nothing(tmp_path: Path) -> None:
    async with running_world(tmp_path, gateway={"keep_alive_s": 0.2}) as world, socket(world) as (reader, writer):
        writer.write(HEALTH)
        await head(reader)
        await within(reader.read(), "the socket is closed")


async def test_too_many_sockets_of_one_address(tmp_path: Path) -> None:
    async with running_world(tmp_path, gateway={"max_connections_per_address": 3}) as world, world.socket() as kept:
        async with socket(world) as first, socket(world) as second, socket(world) as third:
            assert await within(third[0].read(), "the newest idle one is closed") == b""
            first[1].write(HEALTH)
            assert (await head(first[0])).startswith(b"HTTP/1.1 200")
            assert not second[0].at_eof()
        await kept.send_json({"type": "ping"})
        assert (await kept.receive_json())["type"] == "pong"


async def test_behind_a_proxy_the_client_counts(tmp_path: Path) -> None:
    server = {"trusted_proxies": ("127.0.0.0/8",)}
    limits = {"max_connections_per_address": 1}
    async with running_world(tmp_path, gateway=limits, server={"host": "127.0.0.1", "port": 0, **server}) as world:
        one, other = ({**KEY, "X-Forwarded-For": address} for address in ("192.0.2.1", "192.0.2.2"))
        async with world.socket(one):
            answer = await world.call("POST", "/wunder", {"question": "hi", "user_id": "u"}, one)
            assert (answer.status, answer.error["code"]) == (429, "RATE_LIMITED")
            async with world.socket(other):
                pass
