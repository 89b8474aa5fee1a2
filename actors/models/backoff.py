"""How long to wait before asking again: full jitter, or what the server asked for, capped."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """`draw` gives numbers in [0, 1)."""

    base_s: float = 0.5
    max_s: float = 8.0
    max_retry_after_s: float = 30.0
    draw: Callable[[], float] = random.random

    def delay_s(self, failures: int, retry_after_s: float | None) -> float:
        """After the `failures`-th failure in a row. A Retry-After is never undercut below its cap."""
        jittered = self.draw() * min(self.max_s, self.base_s * 2.0 ** (failures - 1))
        if retry_after_s is None:
            return jittered
        return min(retry_after_s, self.max_retry_after_s) + min(jittered, self.base_s)
