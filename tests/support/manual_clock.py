"""A clock that only moves by hand, and ids that count."""

from __future__ import annotations


class ManualClock:
    """`actors.clock.Clock` for tests: wall and monotonic time move together with `advance`."""

    def __init__(self, now_us: int = 1_767_225_600_000_000) -> None:
        self._now_us = now_us
        self._monotonic_s = 1000.0
        self._ids = 0

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}_{self._ids:06d}"

    def advance(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)
        self._monotonic_s += seconds
