"""What time it is."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, tzinfo
from typing import Annotated

import msgspec
from msgspec import Meta

from actors.clock import Clock
from actors.errors import ToolError
from actors.tools.base import ToolContext, ToolResult


class CurrentTimeArguments(msgspec.Struct, frozen=True):
    """Where."""

    timezone: Annotated[
        str, Meta(description="An IANA time zone, for example Europe/Berlin. Default: UTC.", max_length=64)
    ] = "UTC"


class CurrentTime:
    """Asks the clock it was given."""

    name = "current_time"
    description = "Tells the current date and time in a time zone."
    parallel_safe = True
    repeat_safe = True
    arguments: type[msgspec.Struct] = CurrentTimeArguments

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self.timeout_s = timeout_s

    async def run(self, arguments: CurrentTimeArguments, context: ToolContext) -> ToolResult:
        zone = _zone(arguments.timezone)
        now = datetime.fromtimestamp(self._clock.now_us() // 1_000_000, zone)
        data = {"time": now.isoformat(), "timezone": arguments.timezone, "weekday": f"{now:%A}"}
        return ToolResult(ok=True, data=data)


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ToolError(f"There is no time zone {name!r}. Use an IANA name such as Europe/Berlin.") from None
