"""Turns that meet: busy policies, queues and their order, permits, repeated keys, two tabs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from actors.errors import ServiceUnavailable
from actors.messages import Grant, PermitCalls, Release
from tests.streams.scene import Scene, play, together
from tests.support.facts import eventually
from tests.support.readers import Client

Make = Callable[..., Awaitable[Scene]]


async def test_enqueued_turns_run_in_their_order(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    queued = [await played.tab.start(f"echo {n}", played.session_id) for n in range(8)]
    assert [q.ack["position"] for q in queued if q.ack] == list(range(1, 9))
    await played.end()
    for request in queued:
        assert request.ack is not None
        assert await request.ended(request.ack["turn_id"]) == "succeeded"
        assert request.reading is not None
        assert request.reading.kinds()[:2] == ["queued", "queue_start"]
        await played.watch.ended(request.ack["turn_id"])
    assert played.reading.ended == [played.turn_id, *(q.ack["turn_id"] for q in queued if q.ack)]
    await played.check()


async def test_reject_says_no_and_starts_nothing(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    refused = await played.tab.send(
        "start", content="echo no", user_id="ada", session_id=played.session_id, busy="reject"
    )
    error = await refused.failed()
    assert (error["code"], error["detail"]["reason"]) == ("USER_BUSY", "session_busy")
    await played.end()
    assert "echo no" not in str(await world.client.messages(played.session_id))


async def test_interrupt_takes_the_place_of_what_runs(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    await played.say("partly ")
    later = await played.tab.start("echo later", played.session_id)
    now = await played.tab.start("echo now", played.session_id, busy="interrupt")
    assert later.ack
    assert now.ack
    assert await played.watch.ended(played.turn_id) == "interrupted"
    for request in (now, later):
        assert request.ack is not None
        await played.watch.ended(request.ack["turn_id"])
    assert played.reading.ended == [played.turn_id, now.ack["turn_id"], later.ack["turn_id"]]
    await played.check()


async def test_an_interrupted_queue_keeps_its_order_over_a_crash(scene: Make) -> None:
    world = await scene(sessions={"max_active": 1})
    blocker = await play(world, "blocker")
    tab = await world.client.tab()
    first = await tab.start("echo first")
    assert first.ack is not None
    session_id = first.ack["session_id"]
    second = await tab.start("echo second", session_id, busy="interrupt")
    assert second.ack is not None
    await world.crash_owner(session_id)
    await blocker.end()
    watch = await tab.watch(session_id)
    await watch.ended(first.ack["turn_id"])
    await watch.ended(second.ack["turn_id"])
    await world.whole(session_id)


async def test_a_full_queue_is_a_quota(scene: Make) -> None:
    world = await scene(sessions={"max_queued_per_session": 2})
    played = await play(world)
    for _ in range(2):
        await played.tab.start("echo x", played.session_id)
    refused = await played.tab.send("start", content="echo x", user_id="ada", session_id=played.session_id)
    assert (await refused.failed())["code"] == "USER_QUOTA_EXCEEDED"
    await played.end()


async def test_two_tabs_start_and_watch(scene: Make, rng: random.Random) -> None:
    world = await scene()
    one, two = await world.client.tab(), await world.client.tab()
    first = await one.start("echo hello")
    assert first.ack is not None
    session_id = first.ack["session_id"]
    watches = [await one.watch(session_id), await two.watch(session_id)]
    starts = []
    for number in range(12):
        tab = rng.choice((one, two))
        starts.append(await tab.start(f"count to {number + 1}", session_id, busy=rng.choice(("enqueue", "interrupt"))))
    turns = [s.ack["turn_id"] for s in starts if s.ack]
    for watch in watches:
        for turn in turns:
            await watch.ended(turn)
        assert watch.reading is not None
        watch.reading.equals_transcript(await world.client.messages(session_id))
    left, right = (w.reading for w in watches)
    assert left is not None
    assert right is not None
    right.agrees_with(left)
    for start in starts:
        assert start.ack is not None
        assert start.reading is not None
        await start.ended(start.ack["turn_id"])
        mine = [e for e in left.events if e["data"]["turn_id"] == start.ack["turn_id"]]
        assert [e for e in start.reading.events if e["event"] != "rewind"] == mine


async def test_a_repeated_key_starts_one_turn(scene: Make) -> None:
    world = await scene(gateways=2)
    urls = [g.address for g in world.cluster.gateways.values()]
    answers = await together(
        *(world.client.at(urls[n % 2]).ask("count to 9", idempotency_key="once") for n in range(16))
    )
    assert {status for status, _ in answers} == {200}
    assert len({answer["session_id"] for _, answer in answers}) == 1
    assert {answer["answer"] for _, answer in answers} == {"1 2 3 4 5 6 7 8 9"}
    session_id = answers[0][1]["session_id"]
    assert len(await world.client.messages(session_id)) == 2
    status, again = await world.client.ask("count to 9", idempotency_key="once")
    assert (status, again["session_id"]) == (200, session_id)
    assert (await world.whole(session_id)).kinds().count("turn_terminal") == 1


async def test_a_repeated_key_while_it_runs_gets_the_same_stream(scene: Make) -> None:
    world = await scene()
    played = await play(world, idempotency_key="k")
    await played.say("one ", "two ")
    tab = await world.client.tab()
    for policy in ("enqueue", "reject", "interrupt"):
        same = await tab.start("gate a", played.session_id, idempotency_key="k", busy=policy)
        assert same.ack is not None
        assert same.ack["turn_id"] == played.turn_id
    await played.say("three")
    assert await played.end() == "succeeded"
    for request in tab.requests.values():
        assert await request.ended(played.turn_id) == "succeeded"
        assert request.reading is not None
        assert request.reading.text() == "one two three"


async def test_request_ids_are_free_again_after_the_end(scene: Make) -> None:
    world = await scene()
    played = await play(world)
    conflict = await played.tab.send("start", played.start.request_id, content="echo x", user_id="ada")
    assert (await conflict.failed())["code"] == "CONFLICT"
    watch = await played.tab.send("watch", played.watch.request_id, session_id=played.session_id, after_event_id=0)
    assert (await watch.failed())["code"] == "CONFLICT"
    await played.say("still ", "here")
    await played.end()
    await played.start.ended(played.turn_id)
    again = await played.tab.start("echo x", request_id=played.start.request_id)
    assert again.ack is not None
    await again.ended(again.ack["turn_id"])


async def test_a_request_id_used_a_hundred_times(scene: Make) -> None:
    world = await scene()
    tab = await world.client.tab()
    session_id = None
    for number in range(30):
        request = await tab.send("start", "same", content=f"echo {number}", user_id="ada", session_id=session_id)
        ack = await request.acked()
        session_id = ack["session_id"]
        await request.ended(ack["turn_id"])
        assert request.reading is not None
        assert request.reading.text() == str(number)
    await world.whole(str(session_id))


def running(world: Scene) -> int:
    return sum(
        runner.session.running is not None for host in world.cluster.hosts.values() for runner in host._runners.values()
    )


async def test_permits_are_given_in_the_order_they_were_asked_for(scene: Make) -> None:
    world = await scene(sessions={"max_active": 2})
    one, two = await play(world, "one"), await play(world, "two")
    tab = await world.client.tab()
    waiting = [await tab.start(f"gate w{n}") for n in range(5)]
    assert [w.ack["position"] for w in waiting if w.ack] == [1, 2, 3, 4, 5]
    takes = []
    await one.end()
    for number in range(5):
        takes.append(await world.models.take(f"w{number}"))
        assert running(world) <= 2
        assert not any(world.models.takes(f"w{later}") for later in range(number + 1, 5))
        takes[-1].finish()
    await two.end()
    for request in waiting:
        assert request.ack is not None
        assert await request.ended(request.ack["turn_id"]) == "succeeded"


async def test_a_users_limit_holds_nobody_else_up(scene: Make) -> None:
    world = await scene(sessions={"max_active": 4, "max_active_per_user": 1})
    first = await play(world, "first")
    waiting = await (await world.client.tab()).start("gate second")
    other = Client(world.client.http, world.client.url, "bob")
    other.tabs = world.client.tabs
    theirs = await play(world, "theirs", client=other)
    assert world.models.takes("second") == 0
    await first.end()
    (await world.models.take("second")).finish()
    await theirs.end()
    assert waiting.ack is not None
    await waiting.ended(waiting.ack["turn_id"])


async def test_permits_stay_exact_when_the_directory_restarts(scene: Make, rng: random.Random) -> None:
    world = await scene(sessions={"max_active": 3}, llm={"models": {"scripted": {"scripted_delay_ms": 0.3}}})
    tab = await world.client.tab()
    starts = [await tab.start(f"count to {rng.randint(5, 60)}") for _ in range(20)]
    most = 0

    async def restart() -> None:
        nonlocal most
        for _ in range(4):
            await eventually(lambda: world.permits.held or not world.permits.waiting, "somebody runs")
            most = max(most, running(world))
            await world.cluster.restart_directory()
            most = max(most, running(world))

    async def end() -> None:
        for request in starts:
            assert request.ack is not None
            assert await request.ended(request.ack["turn_id"]) == "succeeded"

    await together(end(), restart())
    assert most <= 3


async def test_an_old_grant_is_not_taken_for_a_permit(scene: Make) -> None:
    """A grant that was overtaken by the release it crossed: the session may not run on it."""
    world = await scene(sessions={"max_active": 1})
    one = await play(world, "one")
    tab = await world.client.tab()
    late: list[object] = []
    release = asyncio.Event()

    async def slow_grants(_: str, command: object) -> None:
        if isinstance(command, Grant) and not late:
            late.append(command)
            await release.wait()

    world.cluster.reach.before.append(slow_grants)
    waiting = await tab.start("echo never")
    assert waiting.ack is not None
    session_id = waiting.ack["session_id"]
    await one.end()
    await eventually(lambda: late, "the grant is on its way")
    await tab.cancel(waiting)
    two = await play(world, "two")
    again = await tab.start("gate again", session_id)
    release.set()
    host = world.host_of(session_id)[1]
    await eventually(lambda: not host._background, "the grant was taken")
    await two.say("x")
    assert running(world) == 1
    await two.end()
    (await world.models.take("again")).finish()
    assert again.ack is not None
    await again.ended(again.ack["turn_id"])


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_a_permit_whose_release_is_lost_comes_back(scene: Make, lost: str) -> None:
    world = await scene(sessions={"max_active": 1, "permit_linger_s": 0.0})
    one = await play(world, "one")
    dropped: list[object] = []

    async def drop(_: str, command: object) -> None:
        calls = command.calls if isinstance(command, PermitCalls) else ()
        if any(isinstance(call, Release) for call in calls) and not dropped:
            dropped.append(command)
            raise ServiceUnavailable("lost on the way")

    (world.cluster.reach.before if lost == "request" else world.cluster.reach.after).append(drop)
    await one.end()
    await eventually(lambda: dropped, "the release is lost")
    two = await play(world, "two")
    await two.end()
