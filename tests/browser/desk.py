"""What a test of the console works with: a cluster, the API beside it, and tabs of a real browser."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser, BrowserContext, Page, expect

from actors.clock import SystemClock
from gateway.bootstrap import bootstrap_admin
from gateway.password_rules import PasswordRules
from gateway.passwords import PasswordHasher
from storage.factory import create_store
from tests.support.chromium import Watcher
from tests.support.cut_proxy import CutProxy
from tests.support.gates import GatedModels
from tests.support.local_cluster import LocalCluster

SCREENSHOTS = Path(__file__).parent / "screenshots"
PASSWORD = "correct horse battery"


class Desk:
    """Opens tabs, and asks the API what is really so."""

    def __init__(
        self,
        cluster: LocalCluster,
        models: GatedModels,
        browser: Browser,
        http: aiohttp.ClientSession,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self.cluster = cluster
        self.models = models
        self._browser = browser
        self._http = http
        self._stack = stack
        self._watchers: list[Watcher] = []

    @property
    def url(self) -> str:
        return self.cluster.url

    async def proxy(self) -> CutProxy:
        return await self._stack.enter_async_context(CutProxy(int(self.url.rsplit(":", 1)[1])))

    async def context(self, url: str | None = None, **options: Any) -> BrowserContext:
        options.setdefault("locale", "en-GB")
        options.setdefault("viewport", {"width": 1200, "height": 800})
        options.setdefault("base_url", url or self.url)
        context = await self._browser.new_context(**options)
        self._stack.push_async_callback(context.close)
        context.set_default_timeout(15_000)
        watcher = Watcher(options["base_url"])
        await watcher.watch(context)
        self._watchers.append(watcher)
        return context

    async def tab(self, url: str | None = None, **options: Any) -> Page:
        """A tab at the console, nobody signed in."""
        page = await (await self.context(url, **options)).new_page()
        await page.goto("/")
        return page

    async def signed_in(self, name: str = "ada", url: str | None = None, **options: Any) -> Page:
        """A tab of a new user, at an empty conversation."""
        page = await self.tab(url, **options)
        await register(page, name)
        return page

    async def admin(self, **options: Any) -> Page:
        """A tab of an administrator."""
        store = create_store(self.cluster.settings.storage)
        hasher = PasswordHasher(self.cluster.settings.auth)
        await store.open()
        try:
            rules = PasswordRules(min_length=8, common=frozenset())
            await bootstrap_admin(store, hasher, rules, SystemClock(), configured_password=PASSWORD)
        finally:
            hasher.close()
            await store.close()
        page = await self.tab(**options)
        await sign_in(page, "admin", PASSWORD)
        return page

    async def check(self) -> None:
        for watcher in self._watchers:
            await watcher.check()

    async def api(self, method: str, path: str, **body: Any) -> Any:
        async with self._http.request(method, f"{self.url}{path}", json=body or None) as response:
            answer = await response.json()
            assert response.status < 300, answer
            return answer.get("data", answer)

    async def answers(self, session_id: str) -> list[str]:
        """What the transcript says the assistant has said, of rounds with text."""
        found = await self.api("GET", f"/wunder/chat/sessions/{session_id}?limit=500")
        return [m["content"] for m in found["messages"] if m["role"] == "assistant" and m["content"]]


async def register(page: Page, name: str, password: str = PASSWORD) -> None:
    await page.get_by_role("button", name="No account yet? Create one").click()
    await page.get_by_label("Username").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_label("Message", exact=True)).to_be_visible()


async def sign_in(page: Page, name: str, password: str = PASSWORD) -> None:
    await page.get_by_label("Username").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def say(page: Page, text: str) -> None:
    await page.locator("#message").fill(text)
    await page.locator("#message").press("Enter")


async def shot(page: Page, name: str) -> None:
    """A picture for people to look at."""
    SCREENSHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")


def session_of(page: Page) -> str:
    """The conversation's id in the page's address."""
    return page.url.rsplit("/", 1)[1]


async def prose(page: Page) -> list[str]:
    """The texts of answers that are shown, whitespace as in one line."""
    texts = await page.locator(".prose:visible").all_inner_texts()
    return [" ".join(text.split()) for text in texts]


async def no_sideways_scroll(page: Page) -> None:
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px too wide"
