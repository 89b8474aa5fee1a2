"""A message of a person becomes one turn, and its answer goes back once, to its thread, whatever is repeated."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from actors.channels.replies import HELP, NEW, NOTHING, STOPPED
from actors.errors import UpstreamRefused, UpstreamUnavailable
from storage.outbox_records import OutboxFilter
from tests.integration.channels.conftest import MakeWorld
from tests.support.channel_requests import slack, slack_event
from tests.support.facts import eventually, within
from tests.support.gates import GatedModels
from tests.support.readers import KEY


async def test_a_message_that_comes_twice_is_one_turn_with_one_answer(world: MakeWorld) -> None:
    scene = await world()
    mention = {"channel": "C1", "channel_type": "channel", "thread_ts": "16.9"}
    event = slack_event(text="echo hello there", ts="17.1", **mention)
    answers = await asyncio.gather(*(scene.post(event) for _ in range(5)))
    assert [status for status, _ in answers] == [200] * 5
    (task,) = await scene.ended()
    assert (task.status, task.answer, task.origin) == ("succeeded", "hello there", "task")
    assert await scene.sent() == [{"channel": "C1", "text": "hello there", "thread_ts": "16.9", "unfurl_links": False}]
    await scene.post(event)  # the provider's retry after all of it
    await scene.say("echo again", "17.2", **mention)
    await scene.ended(2)
    assert [call["text"] for call in await scene.sent(2)] == ["hello there", "again"]
    assert await scene.metric("accepted") == 2
    assert await scene.metric("duplicate") == 5


async def test_a_chat_is_one_session_in_order(world: MakeWorld) -> None:
    scene = await world()
    for number in range(4):
        await scene.say(f"echo {number}", f"17.{number}")
    tasks = await scene.ended(4)
    assert len({task.session_id for task in tasks}) == 1
    assert [call["text"] for call in await scene.sent(4)] == ["0", "1", "2", "3"]
    await scene.say("echo other", "18.0", channel="D2")
    tasks = await scene.ended(5)
    assert len({task.session_id for task in tasks}) == 2
    assert len({task.user_id for task in tasks}) == 2


async def test_the_answer_comes_after_the_request_was_answered(world: MakeWorld, gated: GatedModels) -> None:
    scene = await world(gated)
    await within(scene.say("gate a"), "Slack has its answer while the model is silent", 5)
    take = await within(gated.take("a"), "the turn runs")
    take.say("done")
    take.finish()
    assert (await scene.sent())[0]["text"] == "done"


async def test_a_failure_is_told_in_a_few_words(world: MakeWorld, gated: GatedModels) -> None:
    scene = await world(gated)
    await scene.say("gate a")
    take = await within(gated.take("a"), "the turn runs")
    take.fail(UpstreamRefused("a secret reason"))
    (call,) = await scene.sent()
    assert "did not work" in call["text"]
    assert "secret" not in call["text"]


async def test_a_turn_that_is_tried_again_answers_once(world: MakeWorld, gated: GatedModels) -> None:
    scene = await world(gated)
    await scene.say("gate a")
    (await within(gated.take("a"), "the first attempt")).fail(UpstreamUnavailable("away"))
    take = await within(gated.take("a"), "the second attempt")
    take.say("fine")
    take.finish()
    await scene.ended()
    assert [call["text"] for call in await scene.sent()] == ["fine"]


async def test_a_long_answer_comes_in_parts_in_order(world: MakeWorld, gated: GatedModels) -> None:
    scene = await world(gated)
    await scene.say("gate a")
    take = await within(gated.take("a"), "the turn runs")
    text = " ".join(f"word{number}" for number in range(1500))
    take.say(text)
    take.finish()
    await scene.ended()
    calls = await scene.sent(4)
    assert " ".join(call["text"] for call in calls) == text


async def test_slack_that_is_busy_is_asked_again(world: MakeWorld) -> None:
    scene = await world()
    scene.server.mood = "broken"
    await scene.say("echo hello")
    await scene.ended()
    await scene.sent()
    scene.server.mood = "ok"
    (item,) = await scene.store.list_outbox(OutboxFilter(), before=None, limit=5)
    await scene.store.retry_outbox([item.delivery_id], now_us=scene.clock.now_us())

    async def is_sent() -> bool:
        found = await scene.store.get_outbox(item.delivery_id)
        return found is not None and found.state == "sent"

    await eventually(is_sent, "it is sent in the end")


async def test_commands(world: MakeWorld, gated: GatedModels) -> None:
    scene = await world(gated)
    await scene.say("/help", "1.0")
    await scene.say("/stop", "1.1")
    await scene.say("gate a", "1.2")
    await within(gated.take("a"), "the turn runs")
    await scene.say("!stop", "1.3")
    (task,) = await scene.ended()
    assert task.status == "cancelled"
    await scene.say("/new", "1.4")
    await scene.say("echo fresh", "1.5")
    first, second = await scene.ended(2)
    assert first.session_id != second.session_id
    assert [call["text"] for call in await scene.sent(5)] == [HELP, NOTHING, STOPPED, NEW, "fresh"]
    assert await scene.metric("command") == 4


async def test_what_is_refused_is_counted_and_stored_nowhere(world: MakeWorld) -> None:
    scene = await world()
    body = json.dumps(slack_event(text="echo x")).encode()
    now_s = scene.clock.now_us() // 1_000_000
    good, old = dict(slack(body, now_s).headers), dict(slack(body, now_s - 400).headers)
    assert (await scene.raw(body + b" ", good))[0] == 401
    assert (await scene.raw(body, old))[0] == 401
    assert (await scene.raw(body, {}))[0] == 401
    assert (await scene.raw(body, good, account="nobody"))[0] == 404
    assert (await scene.raw(body, good, channel="telegram"))[0] == 404
    assert (await scene.raw(body, good, channel="carrier-pigeon"))[0] == 404
    junk = b'{"type": "event_callback", "event": {"type": "message", "user": 7}}'
    assert (await scene.raw(junk, dict(slack(junk, now_s).headers)))[0] == 400
    huge = b'{"type": "' + b"x" * 1_100_000 + b'"}'
    assert (await scene.raw(huge, dict(slack(huge, now_s).headers)))[0] == 413
    assert await scene.post(slack_event(type="reaction_added")) == (
        200,
        {"ok": True, "data": {"messages": 0, "left_out": 1}},
    )
    async with scene.http.get(f"{scene.cluster.url}/wunder/channel/slack/webhook/team") as response:
        assert response.status == 405
    assert await scene.metric("bad_signature") == 3
    assert await scene.metric("unknown_account", "telegram") == 1
    assert await scene.metric("unknown_account", "unknown") == 1
    assert await scene.metric("unreadable") == 1
    assert await scene.metric("too_big") == 1
    assert await scene.metric("left_out") == 1
    assert await scene.tasks() == []


async def test_the_challenge_and_the_only_account(world: MakeWorld) -> None:
    scene = await world()
    challenge = {"type": "url_verification", "challenge": "abc"}
    assert await scene.post(challenge, account=None) == (200, {"challenge": "abc"})
    assert await scene.metric("answered") == 1


async def test_messages_beyond_the_pace_wait(world: MakeWorld) -> None:
    """Six a minute: one at once, the next in ten seconds."""
    scene = await world(messages_per_minute=6.0)
    for number in range(3):
        await scene.say(f"echo {number}", f"17.{number}", channel=f"D{number}")
    tasks = sorted(await scene.tasks(), key=lambda task: task.run_at_us or 0)
    waits = [round(((task.run_at_us or task.created_us) - task.created_us) / 1e6) for task in tasks]
    assert waits == [0, 10, 20]


async def test_a_deleted_session_is_begun_anew(world: MakeWorld) -> None:
    scene = await world()
    await scene.say("echo one", "17.1")
    (task,) = await scene.ended()
    await scene.sent()
    await scene.store.delete_session(task.session_id)
    await scene.say("echo two", "17.2")
    (second,) = await scene.ended()
    assert second.session_id != task.session_id
    assert (await scene.sent(2))[1]["text"] == "two"


async def test_an_administrator_has_an_answer_sent_to_a_chat(world: MakeWorld) -> None:
    scene = await world()
    url = f"{scene.cluster.url}/wunder/tasks"

    async def submit(headers: dict[str, str] = KEY, **reply: str) -> tuple[int, Any]:
        body = {"question": "echo report", "reply": reply, **({"user_id": "ada"} if headers is KEY else {})}
        async with scene.http.post(url, json=body, headers=headers) as response:
            return response.status, await response.json()

    assert (await submit(account="team", peer="C1", thread="17.1"))[0] == 202
    call = {"channel": "C1", "text": "report", "thread_ts": "17.1", "unfurl_links": False}
    assert await scene.sent() == [call]
    status, refused = await submit(account="nobody", peer="C1")
    assert (status, refused["error"]["field"]) == (400, "reply.account")
    register = {"username": "eve", "password": "correct horse battery"}
    async with scene.http.post(f"{scene.cluster.url}/wunder/auth/register", json=register) as response:
        token = (await response.json())["data"]["access_token"]
    assert (await submit({"Authorization": f"Bearer {token}"}, account="team", peer="C1"))[0] == 403
    assert len(await scene.tasks()) == 1
