"""Cancel at every point: one terminal event, the receipt and the end agree, and an answered cancel holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.errors import UpstreamUnavailable
from tests.streams.scene import Played, Scene, play, together

Make = Callable[..., Awaitable[Scene]]


async def agree(world: Scene, session_id: str, turn_id: str, receipt: dict[str, Any]) -> str:
    """The end that everybody sees."""
    whole = await world.client.page(session_id, 0)
    status = whole.status(turn_id)
    assert receipt["turn_id"] == turn_id
    assert receipt["status"] == status
    assert receipt["cancelled"] == (status in ("cancelled", "interrupted"))
    assert len([e for e in whole.of("final") if e["data"]["turn_id"] == turn_id]) == (status == "succeeded")
    whole.equals_transcript(await world.client.messages(session_id))
    return status


async def cancelled(played: Played, **by: Any) -> None:
    receipt = await (played.tab.cancel(**by) if by else played.tab.cancel(played.start))
    assert await played.start.ended(played.turn_id) == "cancelled"
    await played.watch.ended(played.turn_id)
    assert await agree(played.scene, played.session_id, played.turn_id, receipt) == "cancelled"
    assert played.take.ended.is_set()


async def test_before_the_first_word(scene: Make) -> None:
    await cancelled(await play(await scene()))


async def test_in_the_middle_of_a_round(scene: Make) -> None:
    played = await play(await scene())
    await played.say("some ", "words")
    await cancelled(played, session_id=played.session_id)
    messages = await played.scene.client.messages(played.session_id)
    assert messages[-1]["content"] == "some words"
    assert messages[-1]["partial"] is True


async def test_while_a_tool_runs(scene: Make) -> None:
    played = await play(await scene())
    played.take.call("sleep", {"seconds": 60})
    played.take.finish()
    await played.watch.saw("tool_call")
    await cancelled(played, session_id=played.session_id, turn_id=played.turn_id)
    assert not played.reading.of("tool_result")


async def test_right_behind_its_start(scene: Make) -> None:
    """The client does not wait for the ack."""
    world = await scene()
    tab = await world.client.tab()
    for number in range(8):
        start = await tab.send("start", content=f"gate {number}", user_id="ada")
        cancel = await tab.send_cancel(start)
        receipt, ack = await cancel.acked(), await start.acked()
        assert await start.ended(ack["turn_id"]) == "cancelled"
        await agree(world, ack["session_id"], ack["turn_id"], receipt)


async def test_behind_a_start_that_is_refused(scene: Make) -> None:
    world = await scene()
    tab = await world.client.tab()
    start = await tab.send("start", content="echo x", user_id="ada", session_id="nobody")
    cancel = await tab.send_cancel(start)
    assert (await start.failed())["code"] == "SESSION_NOT_FOUND"
    assert (await cancel.failed())["code"] == "INVALID_REQUEST"


async def test_a_queued_turn(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    queued = await played.tab.start("echo never said", played.session_id)
    assert queued.ack is not None
    assert queued.ack["queued"]
    turn_id = queued.ack["turn_id"]
    receipt = await played.tab.cancel(queued)
    assert await queued.ended(turn_id) == "cancelled"
    assert await agree(world, played.session_id, turn_id, receipt) == "cancelled"
    await played.say("goes on")
    assert await played.end() == "succeeded"
    assert "never said" not in str(await world.client.messages(played.session_id))


async def test_a_turn_that_waits_for_a_permit(scene: Make) -> None:
    world = await scene(sessions={"max_active": 1})
    played = await play(world)
    tab = await world.client.tab()
    waiting = await tab.start("echo never said")
    assert waiting.ack is not None
    receipt = await tab.cancel(waiting)
    assert await waiting.ended(waiting.ack["turn_id"]) == "cancelled"
    await agree(world, waiting.ack["session_id"], waiting.ack["turn_id"], receipt)
    assert not world.permits.waiting
    await played.end()


async def test_after_the_end(scene: Make) -> None:
    played = await play(await scene())
    await played.end()
    receipt = await played.tab.cancel(session_id=played.session_id, turn_id=played.turn_id)
    assert receipt == {"cancelled": False, "turn_id": played.turn_id, "status": "succeeded"}
    nothing = await played.scene.client.cancel(played.session_id)
    assert nothing == {"cancelled": False, "turn_id": None, "status": None}


async def test_twice_at_once(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("a")
    receipts = await together(*(world.client.cancel(played.session_id, played.turn_id) for _ in range(5)))
    await played.watch.ended(played.turn_id)
    for receipt in receipts:
        assert receipt["cancelled"]
        await agree(world, played.session_id, played.turn_id, receipt)


async def test_when_the_owner_dies_after_the_answer(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("a ", "b")
    receipt = await world.client.cancel(played.session_id)
    await world.crash_owner(played.session_id)
    assert await played.watch.ended(played.turn_id) == "cancelled"
    await agree(world, played.session_id, played.turn_id, receipt)
    assert world.models.takes("a") == 1


async def test_while_the_model_breaks(scene: Make) -> None:
    world = await scene()
    for number in range(6):
        played = await play(world, f"m{number}")
        played.take.fail(UpstreamUnavailable("gone"))
        receipt = await world.client.cancel(played.session_id, played.turn_id)
        await played.watch.ended(played.turn_id)
        await agree(world, played.session_id, played.turn_id, receipt)


@pytest.mark.parametrize("hold", ["finish_turn", "accept_turn", "request_cancel"])
async def test_while_the_database_is_slow(scene: Make, hold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await scene()
    played = await play(world)
    await played.say("words")
    _, host = world.host_of(played.session_id)
    store, reached, release = host._services.store, asyncio.Event(), asyncio.Event()
    original = getattr(store, hold)

    async def slow(*args: Any, **kwargs: Any) -> Any:
        reached.set()
        await release.wait()
        return await original(*args, **kwargs)

    monkeypatch.setattr(store, hold, slow)
    played.take.finish()
    cancel = asyncio.create_task(world.client.cancel(played.session_id, played.turn_id))
    if hold == "finish_turn":
        await reached.wait()
    release.set()
    receipt = await cancel
    await played.watch.ended(played.turn_id)
    await agree(world, played.session_id, played.turn_id, receipt)


async def test_at_any_moment(scene: Make, rng: random.Random) -> None:
    """Turns of words and tools, each cancelled after a random number of steps of the loop."""
    world = await scene(llm={"models": {"scripted": {"scripted_delay_ms": 0.1}}})
    questions = (
        "count to 5",
        "calculate 6*7",
        "sleep 0.001",
        "parallel calculate 1+1 and 2+2",
        "fail after 2",
        "think",
    )
    ends: set[str] = set()

    async def one(number: int) -> None:
        tab = await world.client.tab()
        start = await tab.start(rng.choice(questions))
        assert start.ack is not None
        session_id, turn_id = start.ack["session_id"], start.ack["turn_id"]
        for _ in range(rng.choice((0, 3, 30, 100, 300))):
            await asyncio.sleep(0)
        receipt = await world.client.cancel(session_id, turn_id)
        await start.ended(turn_id)
        ends.add(await agree(world, session_id, turn_id, receipt))
        await tab.close()

    await together(*(one(number) for number in range(24)))
    assert "cancelled" in ends
