"""The process is killed between the commit and the answer: the provider's retry finds the message; one turn runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from actors.clock import SystemClock
from storage.factory import create_store
from storage.records import TaskRecord
from storage.settings import StorageSettings
from tests.support.channel_requests import slack, slack_event
from tests.support.facts import eventually, within
from tests.support.provider_servers import ProviderServer

ROOT = Path(__file__).parents[3]


@contextlib.asynccontextmanager
async def wunder(
    folder: Path, server: ProviderServer, mode: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process of its own, and its address."""
    arguments = ("-m", "tests.support.dying_gateway", str(folder), str(server.port), mode)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, (await within(process.stdout.readline(), "it listens", 30)).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def deliver(url: str) -> int:
    """What Slack does, each time with a fresh signature."""
    signed = slack(json.dumps(slack_event(text="echo once", ts="17.1")).encode(), SystemClock().now_us() // 1_000_000)
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/wunder/channel/slack/webhook/team", data=signed.body, headers=dict(signed.headers)) as answer,
    ):
        return answer.status


async def tasks(folder: Path) -> list[TaskRecord]:
    store = create_store(StorageSettings(url=f"sqlite:///{folder}/wunder.db"))
    await store.open()
    try:
        return await store.list_tasks(None, status=None, session_id=None, before=None, limit=10)
    finally:
        await store.close()


async def test_one_turn(tmp_path: Path) -> None:
    async with ProviderServer().running() as server:
        async with wunder(tmp_path, server, "die") as (process, url):
            with pytest.raises(aiohttp.ClientError):
                await deliver(url)
            assert await within(process.wait(), "it is dead") == -signal.SIGKILL
        (recorded,) = await tasks(tmp_path)
        assert not server.calls
        async with wunder(tmp_path, server, "live") as (_, url):
            assert await deliver(url) == 200

            async def over() -> bool:
                return [task.status for task in await tasks(tmp_path)] == ["succeeded"]

            await eventually(over, "the one turn has run", 30)
            assert (await tasks(tmp_path))[0].turn_id == recorded.turn_id
            await eventually(lambda: server.calls, "its answer is sent")
            assert await deliver(url) == 200
        assert [call["text"] for call in server.calls] == ["once"]


async def test_without_the_record_there_are_two(tmp_path: Path) -> None:
    """The twin: what the first test shows is what the record of the message does."""
    async with ProviderServer().running() as server:
        async with wunder(tmp_path, server, "die") as (process, url):
            with pytest.raises(aiohttp.ClientError):
                await deliver(url)
            await within(process.wait(), "it is dead")
        async with wunder(tmp_path, server, "careless") as (_, url):
            assert await deliver(url) == 200
            await eventually(lambda: len(server.calls) == 2, "it is answered twice", 30)
