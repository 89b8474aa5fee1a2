"""How the console looks and reads: phones, dark colours, Chinese, and what a machine finds of accessibility."""

from __future__ import annotations

import importlib.resources
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import MakeDesk
from tests.browser.desk import Desk, no_sideways_scroll, say, shot, sign_in
from tests.support.chromium import styles

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LONG = (
    "echo " + "a-word-without-any-place-to-break-" * 12 + "\n\n```\n" + "x" * 300 + "\n```\n\nand `" + "y" * 200 + "`"
)


async def serious(page: Page) -> list[str]:
    """What axe finds that is serious or critical, as text."""
    script = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    await page.evaluate(f"() => {{ {script} }}")
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


async def a_conversation(page: Page) -> None:
    await say(page, "calculate 6*7")
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    await page.locator(".tool summary").click()
    await say(page, "think about tea")
    await expect(page.locator(".prose").last).to_have_text("I have thought about tea.")
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")


async def test_a_phone_shows_everything_without_scrolling_sideways(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    page = await at.tab(**PHONE)
    await no_sideways_scroll(page)
    await shot(page, "phone-sign-in")
    page = await at.admin(**PHONE)
    await say(page, LONG)
    await expect(page.locator(".prose").last).to_contain_text("yyy")
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    await a_conversation(page)
    await no_sideways_scroll(page)
    await shot(page, "phone-chat")
    await expect(page.locator(".side")).to_be_hidden()
    await page.get_by_role("button", name="Conversations").click()
    await expect(page.locator(".side")).to_be_visible()
    await shot(page, "phone-list")
    await page.keyboard.press("Escape")
    await expect(page.locator(".side")).to_be_hidden()
    for tab in ("overview", "tasks"):
        await page.goto(f"/console/#/operations/{tab}")
        await expect(page.locator("tbody tr").first).to_be_visible()
        await no_sideways_scroll(page)
        await shot(page, f"phone-{tab}")
    await page.locator("tbody a").first.click()
    await expect(page.locator(".facts")).to_be_visible()
    await no_sideways_scroll(page)


async def test_dark_and_light_follow_the_system_or_the_switch(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in(color_scheme="dark")
    dark = await styles(page, "body", "backgroundColor")
    await a_conversation(page)
    await shot(page, "dark-chat")
    assert await serious(page) == []
    await page.locator("summary[aria-label='Account and settings']").click()
    await page.get_by_label("Colours").select_option("light")
    light = await styles(page, "body", "backgroundColor")
    assert dark != light
    await page.reload()
    assert await styles(page, "body", "backgroundColor") == light


async def test_chinese_is_chosen_by_the_browser_and_by_the_reader(desk: MakeDesk) -> None:
    page = await (await desk()).tab(locale="zh-CN")
    await expect(page.get_by_role("heading", name="登录")).to_be_visible()
    await page.get_by_role("button", name="还没有账号？注册一个").click()
    await page.get_by_label("用户名").fill("ada")
    await page.get_by_label("密码").fill("correct horse battery")
    await page.get_by_role("button", name="注册").click()
    await say(page, "calculate 6*7")
    await expect(page.locator(".foot").last).to_contain_text("词元")
    assert await page.evaluate("document.documentElement.lang") == "zh-CN"
    await page.locator("#message").fill("还没有发送")
    await shot(page, "chinese-chat")
    await page.locator("summary[aria-label='账号与设置']").click()
    await page.get_by_label("语言").select_option("en")
    await expect(page.get_by_role("link", name="New conversation")).to_be_visible()
    await expect(page.locator("#message")).to_have_value("还没有发送")
    await expect(page.locator(".prose").last).to_contain_text("42")


async def test_every_language_has_every_text(desk: MakeDesk) -> None:
    page = await (await desk()).tab()
    keys = await page.evaluate(
        """async () => {
            const texts = [await import("/console/text/en.js"), await import("/console/text/zh.js")];
            const holes = (text) => [...text.matchAll(/\\{(\\w+)\\}/g)].map((match) => match[1]).sort().join();
            const keys = ({ default: text }) => Object.entries(text).map(([key, value]) => `${key} ${holes(value)}`);
            return texts.map((text) => keys(text).sort());
        }"""
    )
    assert keys[0] == keys[1]
    assert len(keys[0]) > 200


async def pages(at: Desk) -> Page:
    page = await at.tab()
    assert await serious(page) == [], "sign-in"
    await sign_in(page, "nobody", "wrong")
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await serious(page) == [], "sign-in, refused"
    return await at.admin()


async def test_a_machine_finds_nothing_serious(desk: MakeDesk) -> None:
    at = await desk(pools=1)
    page = await pages(at)
    assert await serious(page) == [], "an empty conversation"
    await a_conversation(page)
    await say(page, LONG)
    await expect(page.locator(".prose").last).to_contain_text("yyy")
    await expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    assert await serious(page) == [], "a conversation"
    for tab in ("overview", "tasks"):
        await page.goto(f"/console/#/operations/{tab}")
        await expect(page.locator("tbody tr").first).to_be_visible()
        assert await serious(page) == [], tab
    await page.locator("tbody a").first.click()
    await expect(page.locator(".facts")).to_be_visible()
    assert await serious(page) == [], "a task"


async def test_the_machine_would_find_something(desk: MakeDesk) -> None:
    page = await (await desk()).tab()
    await page.evaluate("document.querySelector('label').remove()")
    assert any(found.startswith("label") for found in await serious(page))


async def test_motion_is_left_out_where_it_is_not_wanted(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in(reduced_motion="reduce")
    await say(page, "gate a")
    await expect(page.locator(".dots i").first).to_be_visible()
    assert await styles(page, ".dots i", "animationName") == "none"
