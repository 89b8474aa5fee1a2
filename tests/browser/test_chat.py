"""Conversations in a real browser: answers stream, tools are shown, and the network may go away."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import MakeDesk
from tests.browser.desk import prose, register, say, session_of, shot
from tests.support.facts import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_message_is_answered_word_by_word(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.signed_in()
    await shot(page, "chat-empty")
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say("Hel", "lo ")
    await expect(page.locator(".prose")).to_have_text("Hello")
    await expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    take.say("**world**")
    take.finish()
    await expect(page.locator(".prose strong")).to_have_text("world")
    await expect(page.locator(".turn[data-status=succeeded] .foot")).to_contain_text("tokens")
    await expect(page.locator(".chat-list li a[aria-current=page] .title")).to_have_text("gate a")
    await expect(page.get_by_role("button", name="Stop the answer")).to_be_hidden()
    assert await prose(page) == ["Hello world"]
    await page.reload()
    await expect(page.locator(".prose")).to_have_text("Hello world")


async def test_a_tool_is_a_line_that_unfolds(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in()
    await say(page, "calculate 6*7")
    tool = page.locator(".tool")
    await expect(tool).to_have_attribute("data-state", "done")
    await expect(tool.locator("summary")).to_contain_text("calculator")
    await expect(tool.locator("summary")).to_contain_text("6*7")
    await expect(tool.locator("summary")).to_contain_text(re.compile(r"\d m?s"))
    assert await tool.get_attribute("open") is None
    await tool.locator("summary").click()
    await expect(tool.locator(".tool-body")).to_contain_text("42")
    await expect(page.locator(".prose").last).to_contain_text("42")
    await say(page, "think about tea")
    await expect(page.locator(".thought:visible summary")).to_be_visible()
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    await shot(page, "chat-tools")


async def test_stop_cancels_the_turn(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.signed_in()
    await say(page, "gate a")
    (await at.models.take("a")).say("so far ")
    await expect(page.locator(".prose")).to_have_text("so far")
    await page.get_by_role("button", name="Stop the answer").click()
    await expect(page.locator(".turn")).to_have_attribute("data-status", "cancelled")
    await expect(page.locator(".foot")).to_contain_text("cancelled")
    await expect(page.locator(".prose")).to_have_text("so far")
    [task] = (await at.api("GET", f"/wunder/tasks?session_id={session_of(page)}&user_id=*"))["items"]
    assert task["status"] == "cancelled"


async def test_a_cut_network_loses_nothing_and_repeats_nothing(desk: MakeDesk) -> None:
    at = await desk()
    proxy = await at.proxy()
    page = await at.signed_in(url=proxy.url)
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say(*(f"{n} " for n in range(50)))
    await expect(page.locator(".prose")).to_contain_text("49")
    proxy.cut()
    await expect(page.locator(".banner")).to_be_visible()
    take.say(*(f"{n} " for n in range(50, 100)))
    await page.locator("#message").fill("typed while away")
    await eventually(lambda: proxy.refused > 0, "it tries to come back")
    await shot(page, "chat-reconnecting")
    proxy.mend()
    await expect(page.locator(".banner")).to_have_attribute("data-state", "back")
    await expect(page.locator(".prose")).to_contain_text("99")
    take.say(*(f"{n} " for n in range(100, 120)))
    take.finish()
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    wanted = " ".join(str(n) for n in range(120))
    assert await prose(page) == [wanted]
    assert [text.strip() for text in await at.answers(session_of(page))] == [wanted]
    await expect(page.locator("#message")).to_have_value("typed while away")


async def test_without_the_cursor_something_would_be_missing(desk: MakeDesk) -> None:
    """The twin of the test above: its check can fail."""
    at = await desk()
    proxy = await at.proxy()
    page = await at.tab(url=proxy.url)

    async def without_cursor(route: Route) -> None:
        response = await route.fetch()
        text = await response.text()
        assert "#watch(this.conversation.cursor)" in text
        await route.fulfill(
            response=response, body=text.replace("#watch(this.conversation.cursor)", "#watch(undefined)")
        )

    await page.route("**/wire/feed.js", without_cursor)
    await page.reload()
    await register(page, "ada")
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say("1 ", "2 ")
    await expect(page.locator(".prose")).to_have_text("1 2")
    proxy.cut()
    await expect(page.locator(".banner")).to_be_visible()
    session_id = session_of(page)
    buffer = next(h._runners[session_id] for h in at.cluster.hosts.values() if session_id in h._runners).stream.buffer
    before = buffer.latest
    take.say("3 ", "4 ")
    await eventually(lambda: buffer.latest >= before + 2, "they are said")
    proxy.mend()
    await expect(page.locator(".banner")).to_have_attribute("data-state", "back")
    take.say("5 ")
    await expect(page.locator(".prose")).to_have_text("1 2 5")


async def test_a_gap_is_filled_from_the_transcript(desk: MakeDesk, tmp_path: Path) -> None:
    at = await desk(sessions={"idle_s": 0.2, "sweep_s": 0.2})
    proxy = await at.proxy()
    page = await at.signed_in(url=proxy.url)
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say("one ", "two ")
    await expect(page.locator(".prose")).to_have_text("one two")
    session_id = session_of(page)
    proxy.cut()
    await expect(page.locator(".banner")).to_be_visible()
    take.say("three ", "four")
    take.finish()
    await at.api("POST", f"/wunder/chat/sessions/{session_id}/messages", content="echo five", stream=False)
    await eventually(lambda: not any(session_id in h._runners for h in at.cluster.hosts.values()), "it is closed")
    with contextlib.closing(sqlite3.connect(tmp_path / "wunder.db")) as database:  # as retention does, only sooner
        database.execute("DELETE FROM events WHERE kind IN ('llm_output_delta', 'llm_request', 'context_usage')")
        database.commit()
    proxy.mend()
    await expect(page.locator(".turn").last.locator(".prose")).to_have_text("five")
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    assert await prose(page) == ["one two three four", "five"]
    await expect(page.locator(".said")).to_have_text(["gate a", "echo five"])


async def test_a_message_sent_without_a_network_goes_out_once_when_it_is_back(desk: MakeDesk) -> None:
    at = await desk()
    proxy = await at.proxy()
    page = await at.signed_in(url=proxy.url)
    await say(page, "echo first")
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    proxy.cut()
    await expect(page.locator(".banner")).to_be_visible()
    await say(page, "echo second")
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "sending")
    proxy.mend()
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    assert await prose(page) == ["first", "second"]
    assert await at.answers(session_of(page)) == ["first", "second"]


async def test_two_tabs_follow_one_conversation(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.signed_in()
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say("before ")
    await expect(page.locator(".prose")).to_have_text("before")
    other = await page.context.new_page()
    signed_in = await page.evaluate("sessionStorage.getItem('wunder.sign_in')")
    await other.add_init_script(f"sessionStorage.setItem('wunder.sign_in', {signed_in!r})")
    await other.goto(page.url.replace("/console/", "/console/index.html"))
    await expect(other.locator(".prose")).to_have_text("before")
    await expect(other.locator(".said")).to_have_text("gate a")
    take.say("after")
    take.finish()
    for tab in (page, other):
        await expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
        assert await prose(tab) == ["before after"]
    await say(other, "echo from the other")
    await expect(page.locator(".said").last).to_have_text("echo from the other")
    await expect(page.locator(".prose").last).to_have_text("from the other")
    assert await prose(page) == await prose(other) == ["before after", "from the other"]


async def test_a_question_to_a_person_is_answered_in_the_conversation(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    page = await at.signed_in()
    me = await page.evaluate("JSON.parse(sessionStorage.getItem('wunder.sign_in')).user.user_id")
    task = await at.api("POST", "/wunder/tasks", question="gate a", user_id=me, tool_names=["ask_person"])
    take = await at.models.take("a")
    take.call("ask_person", {"question": "Which colour, <b>please</b>?", "choices": ["red", "blue"]})
    take.finish()
    await page.goto(f"/console/#/chat/{task['session_id']}")
    await expect(page.locator(".ask-question")).to_have_text("Which colour, <b>please</b>?")
    await expect(page.locator(".foot")).to_contain_text("Waiting for your answer.")
    await expect(page.locator(".ask").get_by_role("button")).to_have_text(["red", "blue", "Answer"])
    await shot(page, "chat-ask")
    await page.locator(".ask input").fill("green, if I may")
    await page.locator(".ask input").press("Enter")
    again = await at.models.take("a")
    again.say("green it is")
    again.finish()
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    await expect(page.locator(".ask")).to_have_count(0)
    assert await prose(page) == ["green it is"]
    await page.locator(".tool summary").click()
    await expect(page.locator(".tool-body")).to_contain_text("green, if I may")


async def test_a_long_answer_is_whole_for_who_comes_in_the_middle_of_it(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.signed_in()
    await say(page, "echo before")
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say(*(f"{n} " for n in range(3000)))  # more than is looked back at first
    await expect(page.locator(".prose").last).to_contain_text(" 2999")
    await page.reload()
    await expect(page.locator(".prose").last).to_contain_text(" 2999")
    take.say("end")
    await expect(page.locator(".prose").last).to_contain_text(" end")
    assert await prose(page) == ["before", " ".join(map(str, range(3000))) + " end"]
    take.finish()
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    assert await prose(page) == ["before", " ".join(map(str, range(3000))) + " end"]


async def test_a_message_that_waits_says_so(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.signed_in()
    await say(page, "gate a")
    take = await at.models.take("a")
    await say(page, "echo later")
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "queued")
    await expect(page.locator(".turn").last.locator(".foot")).to_contain_text("Waiting, number 1 in line")
    take.say("done")
    take.finish()
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    assert await prose(page) == ["done", "later"]


async def test_a_failed_turn_says_why(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in()
    await say(page, "fail refused")
    await expect(page.locator(".turn")).to_have_attribute("data-status", "failed")
    await expect(page.locator(".foot .error")).to_contain_text("The model cannot be reached.")


async def test_a_lost_owner_takes_its_text_back(desk: MakeDesk) -> None:
    at = await desk(sessions={"sweep_s": 0.2, "lease_s": 1.0, "lease_renew_s": 0.3, "lease_stop_s": 0.6})
    page = await at.signed_in()
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say("one ", "two ")
    await expect(page.locator(".prose")).to_have_text("one two")
    session_id = session_of(page)
    name = next(n for n, host in at.cluster.hosts.items() if session_id in host._runners)
    await at.cluster.crash(name)
    again = await at.models.take("a", timeout_s=20)
    again.say("three")
    again.finish()
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    assert await prose(page) == ["three"] == await at.answers(session_id)


async def test_content_is_never_markup(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in()
    evil = "<script>window.hacked = 1</script> <img src=x onerror='window.hacked = 2'> [x](javascript:hacked=3)"
    await say(page, f"echo {evil}")
    await expect(page.locator(".prose")).to_have_text(evil)
    await expect(page.locator(".said")).to_have_text(f"echo {evil}")
    await expect(page.locator(".chat-list .title")).to_have_text(re.compile("^echo <script>"))
    assert await page.evaluate("window.hacked") is None
    assert await page.locator(".log script, .log img, .log a").count() == 0
    await say(page, "echo see\n\n```js\nif (a < b) { go(); }\n```\n\n1. one\n2. `two`\n\nhttps://example.org/a.")
    await expect(page.locator(".prose").last.locator(".code code")).to_have_text("if (a < b) { go(); }\n")
    await expect(page.locator(".prose").last.locator("a")).to_have_attribute("href", "https://example.org/a")
    await shot(page, "chat-prose")


async def test_the_log_stays_where_the_reader_is(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.signed_in()
    await say(page, "gate a")
    take = await at.models.take("a")
    take.say(*(f"line {n}\n\n" for n in range(80)))
    await expect(page.locator(".prose")).to_contain_text("line 79")
    log = page.locator(".log")
    await eventually_at_end(log)
    await log.evaluate("(log) => { log.scrollTop = 300; }")
    await expect(page.get_by_role("button", name="To the newest message")).to_be_visible()
    take.say(*(f"more {n}\n\n" for n in range(40)))
    await expect(page.locator(".prose")).to_contain_text("more 39")
    assert await log.evaluate("(log) => log.scrollTop") == 300
    await page.get_by_role("button", name="To the newest message").click()
    take.finish()
    await eventually_at_end(log)


async def eventually_at_end(log: object) -> None:
    await eventually(
        lambda: log.evaluate("(log) => log.scrollHeight - log.scrollTop - log.clientHeight < 5"),  # type: ignore[attr-defined]
        "it is at its end",
    )


async def test_older_messages_come_when_the_reader_goes_up(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.signed_in()
    me = await page.evaluate("JSON.parse(sessionStorage.getItem('wunder.sign_in')).user.user_id")
    session = await at.api("POST", "/wunder/chat/sessions", user_id=me, title="long")
    for n in range(60):
        path = f"/wunder/chat/sessions/{session['session_id']}/messages"
        await at.api("POST", path, content=f"echo number {n}", stream=False)
    await page.goto(f"/console/#/chat/{session['session_id']}")
    await expect(page.locator(".turn").last.locator(".prose")).to_have_text("number 59")
    assert await page.locator(".turn").count() < 60
    log = page.locator(".log")

    async def all_there() -> bool:
        await log.evaluate("(log) => { log.scrollTop = 0; }")
        return await page.locator(".turn").count() == 60

    await eventually(all_there, "all turns are there")
    assert await prose(page) == [f"number {n}" for n in range(60)]


async def test_conversations_are_renamed_archived_and_deleted(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in()
    await say(page, "echo hello")
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    actions = page.locator("summary[aria-label='Actions for this conversation']")
    await actions.click()
    await page.get_by_role("button", name="Rename").click()
    await shot(page, "chat-rename")
    await page.get_by_label("Title").fill("Greetings")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".chat-list .title")).to_have_text("Greetings")
    await expect(page.locator(".chat-head h1")).to_have_text("Greetings")
    await actions.click()
    await page.get_by_role("button", name="Archive", exact=True).click()
    await page.get_by_role("link", name="New conversation").click()
    await expect(page.locator(".chat-list .title")).to_have_count(0)
    await page.get_by_label("Show archived").check()
    await page.locator(".chat-list li a").click()
    await actions.click()
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator(".chat-list .title")).to_have_count(0)
    await expect(page.locator(".empty h2")).to_be_visible()
