"""Parts of operations that a server may have or not: schedules, deliveries, channels."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import MakeDesk
from tests.browser.desk import no_sideways_scroll, shot
from tests.support.facts import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT = "2026-11-24T04:40:41.866Z"
DELIVERY = {
    "delivery_id": "dlv_1",
    "channel": "webhook",
    "account": "https://example.org",
    "peer": "ses_1",
    "task_id": "turn_1",
    "state": "dead",
    "attempt": 5,
    "failures": 5,
    "code": "refused",
    "due_at": AT,
    "created_at": AT,
    "first_attempt_at": AT,
    "finished_at": AT,
}
ATTEMPT = {"attempt": 5, "outcome": "refused", "status": 410, "code": "gone", "detail": "<b>no</b>", "started_at": AT}
ACCOUNT = {"account": "team", "from_file": True, "channel": "slack", "enabled": True, "agent": "", "session": "thread"}
NOT_THERE = {"ok": False, "error": {"code": "NOT_FOUND", "message": "there is nothing at this path", "status": 404}}


async def answers(page: Page, path: str, data: Any, status: int = 200) -> list[str]:
    """Answer a path as a server that has the part would; what was asked, as "METHOD path"."""
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(f"{route.request.method} {route.request.url.split('/wunder')[1].split('?')[0]}")
        body = data if status >= 400 else {"ok": True, "data": data}
        await route.fulfill(status=status, content_type="application/json", body=json.dumps(body))

    await page.route(f"**/wunder{path}", answer)
    return asked


async def test_schedules_are_listed_paused_run_and_deleted(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    page = await at.admin()
    body = {"question": "echo tick", "name": "Every morning", "cron": "0 8 * * *", "zone": "Asia/Shanghai"}
    made = await at.api("POST", "/wunder/cron", user_id="ada", **body)
    await page.goto("/console/#/operations/schedules")
    row = page.locator("tbody tr")
    await expect(row).to_contain_text("0 8 * * * Asia/Shanghai")
    await row.get_by_role("button", name="Pause").click()
    await expect(row.locator(".badge")).to_have_text("paused")
    assert (await at.api("GET", f"/wunder/cron/{made['schedule_id']}"))["paused"] is True
    await row.get_by_role("button", name="Resume").click()
    await expect(row.locator(".badge")).to_have_text("active")
    await row.get_by_role("link", name="Every morning").click()
    await page.get_by_role("button", name="Run now").click()
    await expect(page.locator("tbody tr")).to_contain_text("fired")
    await shot(page, "operations-schedule")
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator(".nothing")).to_be_visible()


async def test_a_part_that_is_not_there_is_not_shown(desk: MakeDesk) -> None:
    page = await (await desk()).admin()
    for path in ("/cron?*", "/admin/outbox?*", "/admin/channels"):
        await answers(page, path, NOT_THERE, 404)
    await page.goto("/console/#/operations/tasks")
    await expect(page.locator(".tabs a")).to_have_text(["Overview", "Tasks"])


async def test_dead_deliveries_are_looked_at_sent_again_and_dropped(desk: MakeDesk) -> None:
    page = await (await desk()).admin()
    await answers(page, "/admin/outbox?*", {"items": [DELIVERY], "next": None})
    await answers(page, "/admin/outbox/dlv_1", {**DELIVERY, "body": {"text": "hello"}, "attempts": [ATTEMPT]})
    changed = await answers(page, "/admin/outbox/dlv_1/*", DELIVERY)
    await page.goto("/console/#/operations/outbox")
    await expect(page.locator("tbody tr")).to_contain_text("https://example.org")
    await page.get_by_role("button", name="Retry").click()
    await page.get_by_role("link", name="dlv_1").click()
    await expect(page.locator("tbody td", has_text="<b>no</b>")).to_be_visible()
    await shot(page, "operations-delivery")
    await page.get_by_role("button", name="Drop").click()
    await page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    await eventually(lambda: len(changed) == 2, "it is asked to drop it")
    assert changed == ["POST /admin/outbox/dlv_1/retry", "POST /admin/outbox/dlv_1/drop"]


async def test_channel_accounts_are_listed_and_tested(desk: MakeDesk) -> None:
    page = await (await desk()).admin()
    await page.set_viewport_size({"width": 360, "height": 740})
    await answers(page, "/admin/channels?*", {"items": [ACCOUNT]})
    await answers(page, "/admin/channels", {"items": [ACCOUNT]})
    outcome = {"account": "team", "works": False, "code": "invalid_auth", "detail": "no"}
    await answers(page, "/admin/channels/team/test", outcome)
    await page.goto("/console/#/operations/channels")
    await page.get_by_role("button", name="Test").click()
    await expect(page.locator(".notice")).to_have_text("team does not work. invalid_auth: no")
    await no_sideways_scroll(page)
    await shot(page, "phone-channels")
