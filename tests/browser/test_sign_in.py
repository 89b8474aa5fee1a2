"""Signing in, in a real browser: wrong passwords, slowing down, ended tokens; nothing typed is lost."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import MakeDesk
from tests.browser.desk import PASSWORD, register, say, shot, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def tokens_in_addresses(page: Page) -> bool:
    return bool(re.search("wund_|token=", page.url))


async def test_an_account_is_made_and_signed_in_to(desk: MakeDesk) -> None:
    at = await desk()
    page = await at.tab()
    await expect(page).to_have_title("Sign in")
    await shot(page, "sign-in")
    await register(page, "ada")
    assert not await tokens_in_addresses(page)
    await page.locator("summary[aria-label='Account and settings']").click()
    await shot(page, "account-menu")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert await page.evaluate("JSON.parse(sessionStorage.getItem('wunder.sign_in')).token") is None
    await sign_in(page, "ada")
    await expect(page.locator("#message")).to_be_focused()
    await page.reload()
    await expect(page.locator("#message")).to_be_visible()


async def test_a_wrong_password_is_said_plainly_and_the_name_stays(desk: MakeDesk) -> None:
    page = await (await desk()).tab()
    await register(page, "ada")
    await page.evaluate("sessionStorage.clear()")
    await page.reload()
    await sign_in(page, "ada", "not the password")
    await expect(page.get_by_role("alert")).to_have_text("The username or the password is wrong.")
    await expect(page.get_by_label("Username")).to_have_value("ada")
    await expect(page.get_by_label("Password")).to_be_focused()
    await shot(page, "sign-in-wrong")
    await page.keyboard.type(PASSWORD)  # what was there is selected: typing replaces it
    await page.keyboard.press("Enter")
    await expect(page.locator("#message")).to_be_visible()


async def test_too_many_tries_say_how_long_to_wait(desk: MakeDesk) -> None:
    page = await (await desk(auth={"login_burst": 1, "login_rate_per_minute": 6.0})).tab()
    await sign_in(page, "nobody", "wrong password 1")
    await expect(page.get_by_role("alert")).to_contain_text("wrong")
    await sign_in(page, "nobody", "wrong password 2")
    await expect(page.get_by_role("alert")).to_have_text(re.compile(r"You can try again in \d+ s\."))
    await expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_disabled()
    await expect(page.get_by_label("Password")).to_have_value("wrong password 2")


async def test_a_taken_name_and_closed_registration_are_said(desk: MakeDesk) -> None:
    at = await desk()
    await at.signed_in("ada")
    page = await at.tab()
    await page.get_by_role("button", name="No account yet? Create one").click()
    await page.get_by_label("Username").fill("ada")
    await page.get_by_label("Password").fill("short")
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_role("alert")).to_contain_text("password")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_role("alert")).to_have_text("This name is taken. Choose another one.")


async def test_a_token_that_ends_leads_back_to_sign_in_and_the_draft_is_kept(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in()
    await say(page, "echo hello")
    await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    await page.locator("#message").fill("not sent yet")
    await page.evaluate(  # as signing out everywhere would: the server closes the WebSocket with 4401
        """async () => {
            const { token } = JSON.parse(sessionStorage.getItem("wunder.sign_in"));
            await fetch("/wunder/auth/logout", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
        }"""
    )
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.locator(".notice")).to_contain_text("Your sign-in has ended")
    await expect(page.get_by_label("Username")).to_have_value("ada")
    await sign_in(page, "ada")
    await expect(page.locator("#message")).to_have_value("not sent yet")
    await expect(page.locator(".prose")).to_have_text("hello")


async def test_a_token_that_ended_while_the_tab_slept_is_noticed(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in()
    await page.evaluate(
        """() => {
            const signIn = JSON.parse(sessionStorage.getItem("wunder.sign_in"));
            sessionStorage.setItem("wunder.sign_in", JSON.stringify({ ...signIn, token: "wund_ended" }));
        }"""
    )
    await page.reload()
    await expect(page.locator(".notice")).to_contain_text("Your sign-in has ended")


async def test_somebody_else_does_not_find_the_drafts(desk: MakeDesk) -> None:
    page = await (await desk()).signed_in("ada")
    await page.locator("#message").fill("a secret of ada")
    await page.locator("summary[aria-label='Account and settings']").click()
    await page.get_by_role("button", name="Sign out").click()
    await register(page, "bob")
    await expect(page.locator("#message")).to_have_value("")


async def test_the_keyboard_is_enough(desk: MakeDesk) -> None:
    page = await (await desk()).tab()
    await expect(page.get_by_label("Username")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="No account yet? Create one")).to_be_focused()
    await page.keyboard.press("Enter")
    for _ in range(3):
        await page.keyboard.press("Shift+Tab")
    await page.keyboard.type("ada")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.locator("#message")).to_be_focused()
    await page.keyboard.type("echo one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await page.keyboard.press("Enter")
    await expect(page.locator(".prose")).to_have_text("one\ntwo")
    await page.reload()
    await expect(page.locator("#message")).to_be_focused()
    for _ in range(10):
        await page.keyboard.press("Shift+Tab")
        if await page.evaluate("document.activeElement.className") == "skip":
            break
    await expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    ring = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    account = page.locator("summary[aria-label='Account and settings']")
    await account.focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_label("Language")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(account).to_be_focused()
    await expect(page.get_by_label("Language")).to_be_hidden()
