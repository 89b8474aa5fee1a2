"""What the processes of the scenario `outbox` are told, one JSON line each."""

from __future__ import annotations

from typing import Literal

import msgspec

Mode = Literal["outbox", "serial"]


class ReceiverPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Receivers at 127.0.0.1, 127.0.0.2, ... that answer after `delay_s`; the first after `hang_s`, if that is set."""

    port: int
    accounts: int
    delay_s: float
    hang_s: float = 0.0


class SenderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One outbox over a store; `serial` sends one delivery after the other, as a plain loop would."""

    url: str
    port: int
    mode: Mode
    per_account: int


def host(account: int) -> str:
    """An account's receiver."""
    return f"127.0.0.{account + 1}"
