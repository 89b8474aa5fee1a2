"""A real Chromium for tests of the console: the system's own, headless, through Playwright; nothing is downloaded."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_EXPECTED = ("Failed to load resource", "WebSocket connection to")
"""What Chromium itself says of an answer that is an error, or of a connection that was cut: tests make these."""
_WATCH = """
    window.policyViolations = [];
    addEventListener("securitypolicyviolation", (event) =>
        policyViolations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


def executable() -> str:
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise AssertionError(f"the tests of the console need Chromium: one of {', '.join(NAMES)} in PATH")


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


class Watcher:
    """Notes what no page of ours may do: break its policy, throw, complain, or ask another origin for anything."""

    def __init__(self, *origins: str) -> None:
        self.origins = {origin.replace("http", "ws", 1) for origin in origins} | set(origins)
        self.problems: list[str] = []
        self.requests = 0
        self._pages: list[Page] = []

    async def watch(self, context: BrowserContext) -> None:
        await context.add_init_script(_WATCH)
        context.on("request", self._requested)
        context.on("page", self._opened)

    async def check(self) -> None:
        for page in self._pages:
            if not page.is_closed():
                self.problems += await page.evaluate("window.policyViolations ?? []")
        assert not self.problems, self.problems
        assert self.requests, "nothing was asked for: is it watched at all?"

    def _opened(self, page: Page) -> None:
        self._pages.append(page)
        page.on("pageerror", lambda error: self.problems.append(f"threw: {error}"))
        page.on("console", self._said)
        page.on("websocket", lambda socket: self._asked(socket.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_EXPECTED):
            self.problems.append(f"{message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        self.requests += 1
        self._asked(request.url)

    def _asked(self, url: str) -> None:
        origin = "/".join(url.split("/")[:3])
        if origin not in self.origins and not url.startswith(("data:", "about:")):
            self.problems.append(f"left the origin: {url}")


async def styles(page: Page, selector: str, name: str) -> Any:
    """A computed style of an element."""
    return await page.locator(selector).first.evaluate(f"(element) => getComputedStyle(element).{name}")
