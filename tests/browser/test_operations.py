"""Operations in a real browser: live numbers, tasks with cancel and retry; others see only what is theirs."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import MakeDesk
from tests.browser.desk import shot
from tests.support.facts import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_numbers_are_live_and_the_charts_move(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    page = await at.admin()
    await page.get_by_role("link", name="Operations").click()
    await expect(page.locator("h1")).to_have_text("Overview")
    sessions = page.locator(".tiles div", has_text="Open sessions").locator("dd")
    for n in range(5):
        await at.api("POST", "/wunder", question=f"count to {n + 20}", user_id="ada", stream=False)
    await expect(sessions).not_to_have_text("0")
    turns = page.locator(".chart", has_text="Turns ended")
    drawn = await turns.locator("svg").inner_html()
    await expect(turns.locator(".chart-most")).to_contain_text("/s")

    async def moved() -> bool:
        return await turns.locator("svg").inner_html() != drawn

    await eventually(moved, "the line is drawn again")
    await expect(page.locator("tbody tr").first).to_contain_text("host-")
    await shot(page, "operations-overview")


async def test_a_task_is_looked_at_cancelled_and_another_one_tried_again(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    page = await at.admin()
    waiting = await at.api("POST", "/wunder/tasks", question="gate a", user_id="ada")
    await at.models.take("a")
    failed = await at.api("POST", "/wunder/tasks", question="fail refused", user_id="ada", max_attempts=1)
    await page.goto("/console/#/operations/tasks")
    row = page.locator("tr", has=page.locator(f"a[href$='{failed['task_id']}']"))
    await expect(row.locator(".badge")).to_have_text("failed")
    await shot(page, "operations-tasks")
    await row.locator("a").click()
    await expect(page.locator(".facts .badge")).to_have_text("failed")
    await expect(page.locator("section", has_text="Attempts").locator("tbody tr")).to_have_count(1)
    await shot(page, "operations-task")
    retried = page.get_by_role("button", name="Retry")
    await retried.click()
    await expect(page.locator("div[role=status]", has_text="Queued again.")).to_have_count(1)
    await page.get_by_role("link", name="← All tasks").click()
    await page.get_by_label("State").select_option("running")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator(".nothing")).to_be_visible()
    task = await at.api("GET", f"/wunder/tasks/{waiting['task_id']}")
    assert task["status"] == "cancelled"


async def test_others_see_their_own_tasks_only(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    await at.api("POST", "/wunder", question="echo not yours", user_id="somebody", stream=False)
    page = await at.signed_in()
    await page.get_by_role("link", name="Operations").click()
    await expect(page.locator("h1")).to_have_text("Tasks")
    await expect(page.locator(".nothing")).to_have_text("Nothing here.")
    await expect(page.get_by_role("link", name="Overview")).to_have_count(0)
    await expect(page.get_by_label("Whose")).to_have_count(0)


async def test_agents_of_a_turn_are_shown_and_lead_to_their_tasks(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    page = await at.signed_in()
    me = await page.evaluate("JSON.parse(sessionStorage.getItem('wunder.sign_in')).user.user_id")
    tools = ["spawn_agent", "wait_agents"]
    task = await at.api("POST", "/wunder/tasks", question="delegate gate a and gate b", user_id=me, tool_names=tools)
    await page.goto(f"/console/#/chat/{task['session_id']}")
    first, second = await at.models.take("a"), await at.models.take("b")
    await expect(page.locator(".turn")).to_have_attribute("data-status", "waiting")
    await expect(page.locator(".foot")).to_contain_text("Waiting for 2 agents")
    await shot(page, "chat-agents")
    for take in (first, second):
        take.say("done")
        take.finish()
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    await page.goto(f"/console/#/operations/tasks/{task['task_id']}")
    children = page.locator("section", has_text="Agents it started").locator("tbody tr")
    await expect(children).to_have_count(2)


async def test_a_foreign_conversation_can_be_read_by_an_administrator_only(desk: MakeDesk) -> None:
    at = await desk()
    answer = await at.api("POST", "/wunder", question="echo private", user_id="somebody", stream=False)
    page = await at.admin()
    await page.goto(f"/console/#/chat/{answer['session_id']}")
    await expect(page.locator(".prose")).to_have_text("private")
    await expect(page.locator(".read-only")).to_be_visible()
    await expect(page.locator("#message")).to_be_hidden()
    other = await at.signed_in()
    await other.goto(f"/console/#/chat/{answer['session_id']}")
    await expect(other.get_by_role("alert").first).to_contain_text("does not exist")
