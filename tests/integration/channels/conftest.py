"""`world(...)` starts Wunder with one Slack account (`team`, with these settings) beside a local Slack."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.channel_world import ChannelWorld, channel_settings, channel_world
from tests.support.gates import GatedModels
from tests.support.provider_servers import ProviderServer

MakeWorld = Callable[..., Awaitable[ChannelWorld]]


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with ProviderServer().running() as running:
        yield running


@pytest.fixture
async def world(tmp_path: Path, server: ProviderServer) -> AsyncIterator[MakeWorld]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(models: GatedModels | None = None, **account: Any) -> ChannelWorld:
            settings = channel_settings(tmp_path, server, **account)
            gated = models or GatedModels(settings.llm)
            return await stack.enter_async_context(channel_world(settings, server, lambda _: gated))

        yield make


@pytest.fixture
def gated() -> GatedModels:
    from gateway.settings import Settings

    return GatedModels(Settings().llm)
