"""The only place that reads a clock or makes an id: everything else is handed a `Clock`."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time in microseconds for records, monotonic seconds for deadlines, and fresh ids."""

    def now_us(self) -> int: ...
    def monotonic_s(self) -> float: ...
    def new_id(self, prefix: str) -> str: ...


class SystemClock:
    """The machine's clock and its random source."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_hex(12)}"


def isoformat(now_us: int) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`."""
    return f"{_seconds(now_us // 1_000_000)}.{now_us // 1000 % 1000:03d}Z"


_last: tuple[int, str] = (0, "1970-01-01T00:00:00")


def _seconds(second: int) -> str:
    # Formatting is a visible part of an event's cost; neighbours in a stream share their second.
    global _last  # noqa: PLW0603
    if _last[0] != second:
        _last = (second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return _last[1]
