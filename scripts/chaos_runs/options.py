"""What a run is asked for, and what its processes are told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

Fault = Literal["kill", "stop", "stall", "restart", "terminate"]
FAULTS: tuple[Fault, ...] = ("kill", "stop", "stall", "restart", "terminate")
PLAN_VARIABLE = "CHAOS_PLAN"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A run. `hold_s` is the mean time that the world takes for an effect; `pace` shortens the time between faults."""

    tasks: int
    seed: int
    pools: int
    slots: int
    hold_s: float
    lease_s: float
    pace: float
    deadline_s: float
    faults: tuple[Fault, ...]
    fenced: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the service's processes are told: the proxy of each pool, the ledger of owners, and whether they fence."""

    pools: int
    proxies: tuple[int, ...]
    owners: str
    fenced: bool


def the_plan() -> Plan:
    """The plan of this process."""
    return msgspec.json.decode(Path(os.environ[PLAN_VARIABLE]).read_bytes(), type=Plan)
