"""Clients that read slowly, or only write: what each of them may cost, and when it is cut off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from gateway.protocol import CloseCode
from gateway.websocket import WebSocketConnection
from tests.streams.scene import Played, Scene, play
from tests.support.facts import eventually, within

Make = Callable[..., Awaitable[Scene]]
ENDLESS = {"messages_per_minute": 1e9, "message_burst": 1_000_000}


def connections(world: Scene) -> list[WebSocketConnection]:
    gateway = next(iter(world.cluster.gateways.values()))
    return [c for c in gateway.connections._open if isinstance(c, WebSocketConnection)]


async def stalled_reader(world: Scene, played: Played) -> tuple[aiohttp.ClientWebSocketResponse, WebSocketConnection]:
    """A watcher that never reads, once it has taken nothing for a while."""
    before = connections(world)
    socket = await world.client.http.ws_connect(f"{world.client.url}/wunder/ws")
    payload = {"session_id": played.session_id, "after_event_id": 0}
    await socket.send_json({"type": "watch", "request_id": "w", "payload": payload})
    gateway = next(iter(world.cluster.gateways.values()))
    await eventually(lambda: gateway.topics.subscriptions == 3, "it watches")
    for _ in range(12):  # more than the kernel hides on both sides
        await played.say(*("x" * 100_000 for _ in range(10)))
    (slow,) = [c for c in connections(world) if c not in before]
    await eventually(lambda: slow.stalled_s() > 0.2, "it has taken nothing for a while")
    return socket, slow


@pytest.mark.parametrize("first", [CloseCode.TOKEN_ENDED, CloseCode.DRAINING])
async def test_a_stalled_reader_that_is_being_closed_is_cut_off_all_the_same(scene: Make, first: int) -> None:
    world = await scene(gateway={"slow_client_timeout_s": 0.2})
    played = await play(world)
    socket, slow = await stalled_reader(world, played)
    slow.close(first, "it does not take this either")
    gateway = next(iter(world.cluster.gateways.values()))
    await gateway.connections._keep()
    await eventually(lambda: len(gateway.connections) == 1, "it is gone")
    await played.end()
    await socket.close()


async def test_who_does_not_read_its_answers_is_not_asked_for_more(scene: Make) -> None:
    world = await scene(gateway=ENDLESS)
    socket = await world.client.http.ws_connect(f"{world.client.url}/wunder/ws")
    ping = {"type": "ping", "request_id": "p" * 128}

    async def flood() -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(150_000):
                await socket.send_json(ping)

    flooding = asyncio.create_task(flood())
    (connection,) = connections(world)
    await eventually(lambda: connection.queue.full and connection.stalled_s() > 0.3, "the client takes nothing", 60)
    assert connection.queue.depth_bytes < 262_144 + 256 * 200
    connection.close(CloseCode.TOO_SLOW, "enough")
    await within(flooding, "the flood ends", 60)
    await socket.close()


async def test_a_reader_that_still_takes_bytes_needs_no_pong(scene: Make) -> None:
    """Behind a slow reader's unread bytes our ping may wait for longer than a pong may take."""
    world = await scene(gateway={"heartbeat_s": 0.1})
    played = await play(world)
    socket = await world.client.http.ws_connect(f"{world.client.url}/wunder/ws", autoping=False)
    payload = {"session_id": played.session_id, "after_event_id": 0}
    await socket.send_json({"type": "watch", "request_id": "w", "payload": payload})
    pings = 0
    while pings < 5:  # each but the first is sent after a pong that did not come in time
        message = await within(socket.receive(), "frames and pings")
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING)
        if message.type is aiohttp.WSMsgType.PING:
            pings += 1
            await played.say(f"{pings} ")
    while message.type not in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
        message = await within(socket.receive(), "it is cut off when it takes nothing more")
    await played.end()
