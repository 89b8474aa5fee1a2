"""A gateway comes and goes on an owner's line: what leaves may not take along what has just come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from actors.messages import AnyCommand, Follow, Unfollow
from tests.streams.scene import Played, Scene, play
from tests.support.facts import eventually, within
from tests.support.readers import Client, Tab

Make = Callable[..., Awaitable[Scene]]


class Held:
    """Calls of one kind to an owner that wait until they are let go; `seen` is set by the first."""

    def __init__(self, kind: type[AnyCommand]) -> None:
        self._kind = kind
        self.seen = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, _: str, command: AnyCommand) -> None:
        if isinstance(command, self._kind):
            self.seen.set()
            await self.let_go.wait()


@pytest.fixture(autouse=True)
def no_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody reads is left at once."""
    monkeypatch.setattr("gateway.topics._LINGER_S", -1.0)
    monkeypatch.setattr("gateway.topics._JOIN_S", -1.0)


async def second(world: Scene, played: Played) -> tuple[str, Client, Tab]:
    """The other gateway, where a reader of the session has just left."""
    name = list(world.cluster.gateways)[1]
    client = world.client.at(world.cluster.gateways[name].address)
    tab = await client.tab()
    watch = await tab.watch(played.session_id)
    await tab.cancel(watch)
    return name, client, tab


async def test_a_follow_under_way_keeps_its_topic(scene: Make) -> None:
    world = await scene(gateways=2)
    played = await play(world)
    name, _, tab = await second(world, played)
    topics = world.cluster.gateways[name].topics
    held = Held(Follow)
    world.cluster.reach.after.append(held)
    watch = await tab.send("watch", session_id=played.session_id, after_event_id=played.reading.cursor)
    await within(held.seen.wait(), "the owner has answered")
    await topics._keep()
    held.let_go.set()
    await watch.acked()
    await played.say("still ", "here")
    await watch.saw("llm_output_delta", 2)
    await played.end()
    await watch.ended(played.turn_id)


async def test_an_unfollow_that_a_follow_has_overtaken_undoes_nothing(scene: Make) -> None:
    world = await scene(gateways=2)
    played = await play(world)
    name, _, tab = await second(world, played)
    held = Held(Unfollow)
    world.cluster.reach.before.append(held)
    await within(held.seen.wait(), "the gateway leaves")
    watch = await tab.watch(played.session_id, played.reading.cursor)
    held.let_go.set()
    gateway = world.cluster.gateways[name]
    await eventually(lambda: not world.cluster.reach._serving[world.host_of(played.session_id)[0]], "it was served")
    assert name in world.runner_of(played.session_id).stream.lines
    await played.say("still ", "here")
    await watch.saw("llm_output_delta", 2)
    await played.end()
    await watch.ended(played.turn_id)
    world.cluster.reach.before.clear()
    await tab.cancel(watch)
    await gateway.topics._keep()
    await eventually(lambda: name not in world.runner_of(played.session_id).stream.lines, "a newer one counts")


async def test_a_refused_turn_leaves_no_line_behind(scene: Make) -> None:
    world = await scene(gateways=2)
    played = await play(world)
    name, client, _ = await second(world, played)
    topics = world.cluster.gateways[name].topics
    lines = world.runner_of(played.session_id).stream.lines
    await topics._keep()
    await eventually(lambda: name not in lines, "the reader's line is gone")
    status, body = await client.ask("no", session_id=played.session_id, busy="reject")
    assert (status, body["error"]["code"]) == (429, "USER_BUSY")
    await topics._keep()
    await eventually(lambda: name not in lines, "nobody reads there")
    await played.end()
