"""Requests that wait or stream over HTTP are connections: counted, limited, ended with their token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.main import GatewayService
from tests.streams.scene import Scene, play
from tests.support.facts import eventually, within
from tests.support.readers import KEY

Make = Callable[..., Awaitable[Scene]]


def first(world: Scene) -> GatewayService:
    return next(iter(world.cluster.gateways.values()))


async def register(world: Scene, name: str) -> dict[str, str]:
    """A user's headers, without the API key."""
    body = {"username": name, "password": "a quiet green lamp"}
    async with world.client.http.post(f"{world.client.url}/wunder/auth/register", json=body) as response:
        assert response.status == 200, await response.text()
        token = (await response.json())["data"]["access_token"]
    return {"Authorization": f"Bearer {token}"}


async def test_a_wait_for_an_answer_is_a_connection(scene: Make) -> None:
    world = await scene(gateway={"max_connections_per_user": 1})
    waiting = asyncio.create_task(world.client.ask("gate a"))
    take = await world.models.take("a")
    connections = first(world).connections
    await eventually(lambda: connections.count("wait") == 1, "it is counted")
    status, body = await world.client.ask("gate b")
    assert (status, body["error"]["code"]) == (429, "RATE_LIMITED")
    take.say("done")
    take.finish()
    status, body = await waiting
    assert (status, body["answer"]) == (200, "done")
    await eventually(lambda: len(connections) == 0, "and counted no more")


async def test_a_wait_ends_with_its_token_and_the_turn_goes_on(scene: Make) -> None:
    world = await scene()
    headers = await register(world, "grace")
    url = world.client.url

    async def ask() -> tuple[int, dict[str, Any]]:
        body = {"question": "gate a", "stream": False}
        async with world.client.http.post(f"{url}/wunder", json=body, headers=headers) as response:
            return response.status, await response.json()

    waiting = asyncio.create_task(ask())
    take = await world.models.take("a")
    await eventually(lambda: first(world).connections.count("wait") == 1, "it waits")
    async with world.client.http.post(f"{url}/wunder/auth/logout", headers=headers) as response:
        assert response.status == 200
    status, body = await within(waiting, "it is answered")
    assert (status, body["error"]["code"]) == (401, "AUTH_REQUIRED")
    take.finish()
    await eventually(lambda: not world.permits.held, "the turn has ended")


@pytest.mark.parametrize("end", ["token", "drain"])
async def test_a_stream_that_opens_while_its_token_ends_or_a_drain_begins(
    scene: Make, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await scene()
    headers = await register(world, "grace")
    gateway = first(world)
    async with world.client.http.post(f"{world.client.url}/wunder/chat/sessions", json={}, headers=headers) as response:
        session_id = (await response.json())["data"]["session_id"]
    follow = gateway.topics.follow

    async def meanwhile(*args: Any) -> Any:
        followed = await follow(*args)
        if end == "drain":
            gateway.connections.drain()
        else:
            principal = next(iter(gateway.auth._cache._found._items))
            await gateway.auth.end_token(principal)
        return followed

    monkeypatch.setattr(gateway.topics, "follow", meanwhile)
    url = f"{world.client.url}/wunder/chat/sessions/{session_id}/resume?watch=1"
    async with world.client.http.get(url, headers=headers) as response:
        assert response.status == 200
        assert await within(response.read(), "the stream ends") == b""


async def test_a_page_beyond_what_is_stored_asks_the_owner(scene: Make) -> None:
    """The newest deltas are not stored yet: a cursor among them is no gap, one beyond them is."""
    world = await scene(sessions={"event_writer": {"flush_interval_ms": 60_000.0}})
    played = await play(world)
    await played.say("a ", "b ", "c ")
    latest = played.reading.cursor
    path = f"{world.client.url}/wunder/chat/sessions/{played.session_id}/events"

    async def page(after: int) -> dict[str, Any]:
        async with world.client.http.get(f"{path}?after={after}", headers=KEY) as response:
            return dict((await response.json())["data"])

    assert await page(latest) == {"events": [], "running": True, "last_event_id": latest}
    beyond = await page(latest + 33)
    assert (beyond["last_event_id"], [e["event"] for e in beyond["events"]]) == (latest, ["gap"])
    assert beyond["events"][0]["data"]["data"] == {"from": latest + 33, "oldest": latest + 1, "latest": latest}
    await played.end()
