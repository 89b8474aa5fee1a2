"""`python -m tests.support.dying_gateway FOLDER SLACK_PORT MODE`: Wunder as a process with one Slack account.

It prints its address. With `die` it is killed (SIGKILL, by itself) the moment that a message and its task are
committed, before the provider has an answer. With `careless` it takes every message for a new one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import storage.channels
from storage.channel_records import ChannelMessage
from storage.channels import ChannelTopic
from storage.database import Runner
from tests.support.channel_world import channel_settings, channel_world
from tests.support.provider_servers import ProviderServer


def die_after_commit() -> None:
    accept = ChannelTopic.accept_channel_message

    async def accept_and_die(self: ChannelTopic, *args: Any, **kwargs: Any) -> Any:
        await accept(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    ChannelTopic.accept_channel_message = accept_and_die  # type: ignore[method-assign]


def take_all_for_new() -> None:
    async def record(tx: Runner, message: ChannelMessage) -> bool:
        return True

    storage.channels.record_message = record


async def main(folder: str, slack_port: str, mode: str) -> None:
    if mode == "die":
        die_after_commit()
    if mode == "careless":
        take_all_for_new()
    server = ProviderServer()
    server.port = int(slack_port)  # it runs in the process of the test
    async with channel_world(channel_settings(Path(folder), server), server) as world:
        print(world.cluster.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
