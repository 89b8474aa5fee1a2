"""How fast a pool works off its tasks: measured only while more tasks wait than it has slots, the past fading away."""

from __future__ import annotations

import math

_MEMORY_S = 60.0
"""After so long of such time, what was measured counts for a third of what it did."""
_LEAST = 3.0
_STALE_S = 600.0


class DrainRate:
    """Tasks that leave the pool per second. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._finished = 0.0
        self._measured_s = 0.0
        self._since_s: float | None = None
        self._last_s = -math.inf

    def waiting(self, some: bool, now_s: float) -> None:
        """Whether tasks wait for a slot from now on."""
        self._advance(now_s)
        self._since_s = now_s if some else None

    def finished(self, now_s: float) -> None:
        """A task has left its slot."""
        self._advance(now_s)
        if self._since_s is not None:
            self._finished += 1

    def per_s(self, now_s: float) -> float | None:
        """None while too little is known, or it is too long ago."""
        self._advance(now_s)
        if self._finished < _LEAST or self._measured_s <= 0 or now_s - self._last_s > _STALE_S:
            return None
        return self._finished / self._measured_s

    def _advance(self, now_s: float) -> None:
        if self._since_s is None:
            return
        passed_s, self._since_s, self._last_s = now_s - self._since_s, now_s, now_s
        kept = math.exp(-passed_s / _MEMORY_S)
        self._finished *= kept
        self._measured_s = self._measured_s * kept + passed_s
