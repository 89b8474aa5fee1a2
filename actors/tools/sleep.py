"""Waiting, for scripts and tests of long turns."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta

from actors.tools.base import ToolContext, ToolResult

MAX_SLEEP_S = 300.0


class SleepArguments(msgspec.Struct, frozen=True):
    """How long."""

    seconds: Annotated[float, Meta(description="Seconds to wait, at most 300.", ge=0, le=MAX_SLEEP_S)]


class Sleep:
    """Ends at once when the turn is cancelled."""

    name = "sleep"
    description = "Waits for a number of seconds."
    parallel_safe = True
    repeat_safe = True
    timeout_s = MAX_SLEEP_S + 5
    arguments: type[msgspec.Struct] = SleepArguments

    async def run(self, arguments: SleepArguments, context: ToolContext) -> ToolResult:
        await asyncio.sleep(arguments.seconds)
        return ToolResult(ok=True, data={"slept_s": arguments.seconds})
