"""A circuit breaker: an upstream that fails again and again is left alone, then tried with one probe.

closed --N failures in a row--> open --rest_s--> half open --probe ok--> closed
                                 ^                   |
                                 +---- probe fails, twice the rest --+
"""

from __future__ import annotations


class Breaker:
    """Shared by everything that asks one upstream. Time comes in as monotonic seconds."""

    def __init__(self, threshold: int = 8, rest_s: float = 2.0, max_rest_s: float = 30.0) -> None:
        self._threshold = threshold
        self._first_rest_s = rest_s
        self._max_rest_s = max_rest_s
        self._rest_s = rest_s
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    @property
    def is_probing(self) -> bool:
        """Whether the one probe is under way."""
        return self._probing

    def open_for_s(self, now_s: float) -> float:
        """How long nothing may go from now; asking changes nothing."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now_s)

    def wait_s(self, now_s: float) -> float:
        """0 when a request may go now (it is then the probe, if the breaker is half open), else seconds to wait."""
        if self._open_until is None:
            return 0.0
        if now_s < self._open_until:
            return self._open_until - now_s
        if self._probing:
            return self._rest_s
        self._probing = True
        return 0.0

    def succeeded(self) -> None:
        """The upstream answers again."""
        self._failures = 0
        self._rest_s = self._first_rest_s
        self._open_until = None
        self._probing = False

    def failed(self, now_s: float) -> None:
        """It failed in a way that is its own trouble (not a refusal, not our rate)."""
        self._failures += 1
        if self._open_until is not None:
            if self._probing:
                self._rest_s = min(self._rest_s * 2, self._max_rest_s)
                self._open_until = now_s + self._rest_s
                self._probing = False
        elif self._failures >= self._threshold:
            self._open_until = now_s + self._rest_s

    def abandoned(self) -> None:
        """A request ended without telling anything about the upstream (cancelled): another may be the probe."""
        self._probing = False
