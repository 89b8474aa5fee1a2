"""What the harness asks of a client process; one JSON document."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["stream", "turn", "cancel", "idle"]
Transport = Literal["ws", "sse"]

API_KEY = "bench-api-key-0123456789"


class Script(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of tests/support/upstream_script.py that the benchmark uses. `rate` 0 is as fast as it goes."""

    deltas: int = 10
    rate: float = 0.0
    spread: bool = False

    @property
    def period_s(self) -> float:
        return 1 / self.rate if self.rate else 0.0

    @property
    def seconds(self) -> float:
        """From the first delta to the end of the answer: upstream ends one period after the last delta."""
        return self.deltas * self.period_s

    def text(self) -> str:
        """The user's message that makes upstream play this script."""
        return msgspec.json.encode({"deltas": self.deltas, "rate": self.rate, "spread": self.spread}).decode()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `streams` turns at once; `turns` per worker (turn), probes (cancel); `connections` (idle)."""

    kind: Kind
    url: str
    script: Script = Script()
    streams: int = 1
    turns: int = 1
    connections: int = 0
    transport: Transport = "ws"
    multiplex: int = 1
    ramp_s: float = 1.0
    warm_at_once: int = 8
    timeout_s: float = 60.0

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]
