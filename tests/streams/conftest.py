"""A cluster in this process for each scenario, and the leak check after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import gateway.app
from actors.models.registry import Models
from actors.settings import LlmSettings
from gateway.requests import Requests
from tests.streams.scene import Scene
from tests.support.facts import eventually, tick
from tests.support.gates import GatedModels
from tests.support.local_cluster import LocalCluster, local_settings
from tests.support.readers import KEY, Client

SEEDS = (1, 2, 3)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Scenarios with chance in them take `seed`: a fixed list and a fresh one, or what --seed says."""
    if "seed" in metafunc.fixturenames:
        given = metafunc.config.getoption("--seed")
        fresh = random.SystemRandom().randrange(10_000, 1_000_000)
        metafunc.parametrize("seed", [given] if given is not None else [*SEEDS, fresh])


@pytest.fixture
def rng(seed: int) -> random.Random:
    print(f"replay with --seed {seed}")
    return random.Random(seed)


class _Unexpected(logging.Handler):
    """What nobody expected: exceptions in the log, and in the loop."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        if "where" in fields:
            self.seen.append(f"{record.getMessage()} {fields}")

    def loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.seen.append(f"{context.get('message')} {context.get('exception')!r}")


@pytest.fixture
def unexpected() -> Any:
    handler = _Unexpected()
    logger = logging.getLogger("wunder")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
async def scene(
    tmp_path: Path, unexpected: _Unexpected, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[Scene]]]:
    """`await scene(sessions={...}, gateways=2)` starts a cluster; at the end nothing may be left of it."""
    asyncio.get_running_loop().set_exception_handler(unexpected.loop)
    live: list[Requests] = []

    class Recorded(Requests):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            live.append(self)

    monkeypatch.setattr(gateway.app, "Requests", Recorded)
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:
        scenes: list[Scene] = []

        async def make(*, gateways: int = 1, storage_url: str | None = None, **sections: Any) -> Scene:
            sections.setdefault("sessions", {})
            sections["sessions"] = {"sweep_s": 0.2, **sections["sessions"]}
            settings = local_settings(tmp_path, storage_url, **sections)
            models = GatedModels(settings.llm)
            cluster = LocalCluster(settings, _shared(models))
            stack.push_async_callback(cluster.stop)
            await cluster.start(gateways)
            http = await stack.enter_async_context(
                aiohttp.ClientSession(headers=KEY, connector=aiohttp.TCPConnector(limit=0))
            )
            client = Client(http, cluster.url, "ada")
            scenes.append(Scene(cluster, models, client))
            return scenes[-1]

        yield make
        for found in scenes:
            await found.client.close()
            await _settled(found, live)
    left: set[asyncio.Task[Any]] = set()

    def nothing_left() -> bool:
        left.clear()
        left.update(task for task in asyncio.all_tasks() - before if task is not asyncio.current_task())
        return not left

    try:
        await eventually(nothing_left, "only the tasks that were there before")
    except AssertionError as error:
        raise AssertionError(f"{error}; left: {[repr(task) for task in left]}") from None
    await tick(0)
    assert not unexpected.seen, unexpected.seen


async def _settled(scene: Scene, live: list[Requests]) -> None:
    """Nobody reads, runs or holds anything any more."""
    await eventually(lambda: not any(len(requests) for requests in live), "no live requests")
    for gateway_ in scene.cluster.gateways.values():
        await eventually(lambda g=gateway_: not len(g.connections), "no connections")
        await eventually(lambda g=gateway_: not g.topics.subscriptions, "no subscriptions")
    if not scene.leaves_turns:
        assert scene.cluster.directory is not None
        await eventually(
            lambda: not any(h._background for h in scene.cluster.hosts.values()), "nobody asks for permits"
        )
        await scene.cluster.directory.desk._recall_once()
        await eventually(lambda: not scene.permits.held, lambda_text(scene, "held"))
        await eventually(lambda: not scene.permits.waiting, lambda_text(scene, "waiting"))


def lambda_text(scene: Scene, which: str) -> str:
    return f"no permits {which}: {getattr(scene.permits, which)}"


def _shared(models: GatedModels) -> Callable[[LlmSettings], Models]:
    return lambda _: models
