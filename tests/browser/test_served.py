"""The console against the whole service on a real Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, expect

from tests.browser.desk import prose, register, say
from tests.support.chromium import Watcher
from tests.support.served import Served

pytestmark = pytest.mark.asyncio(loop_scope="session")
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    settings = {"llm": {"models": {"scripted": {"scripted_delay_ms": 20.0}}}, "sessions": {"max_actors_per_node": 2}}
    service = Served(folder, f"sqlite:///{folder}/data/wunder.db", settings)
    service.start()
    yield service
    assert service.stop() == 0


async def test_an_actor_that_dies_in_the_middle_of_an_answer_is_not_noticed(served: Served, browser: Browser) -> None:
    watcher = Watcher(served.url)
    async with await browser.new_context(base_url=served.url, locale="en-GB") as context:
        await watcher.watch(context)
        page = await context.new_page()
        await page.goto("/")
        await register(page, "ada")
        await say(page, "count to 300")
        await expect(page.locator(".prose")).to_contain_text(" 40 ")
        assert served.kill("SessionActor")
        await expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded", timeout=60_000)
        assert await prose(page) == [" ".join(str(n) for n in range(1, 301))]
        await watcher.check()
