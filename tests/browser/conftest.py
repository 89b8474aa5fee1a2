"""One Chromium for the run; for each test a real gateway with its store, sessions and pool, and fresh tabs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.desk import SCREENSHOTS, Desk
from tests.support.chromium import chromium
from tests.support.gates import GatedModels
from tests.support.local_cluster import LocalCluster, local_settings

expect.set_options(timeout=15_000)

MakeDesk = Callable[..., Awaitable[Desk]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any(SCREENSHOTS.glob("*.png")):
        terminalreporter.write_line(f"screenshots: {SCREENSHOTS}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def desk(browser: Browser, tmp_path: Path) -> AsyncIterator[MakeDesk]:
    """`await desk(auth={...})` starts everything; at the end no page may have broken a rule."""
    async with contextlib.AsyncExitStack() as stack:
        desks: list[Desk] = []

        async def make(pools: int = 0, **sections: Any) -> Desk:
            sections.setdefault("security", {"bootstrap_admin_password": "correct horse battery"})
            settings = local_settings(tmp_path, **sections)
            models = GatedModels(settings.llm)
            cluster = LocalCluster(settings, lambda _: models)
            stack.push_async_callback(cluster.stop)
            await cluster.start(1, pools=pools)
            http = await stack.enter_async_context(aiohttp.ClientSession(headers={"X-API-Key": "test-api-key"}))
            desks.append(Desk(cluster, models, browser, http, stack))
            return desks[-1]

        yield make
        for each in desks:
            await each.check()
