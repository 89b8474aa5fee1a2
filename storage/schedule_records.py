"""Rows of schedules as frozen structs. Times are microseconds since the epoch (UTC), JSON is `bytes`."""

from __future__ import annotations

from typing import Literal, NewType

import msgspec

from storage.records import Enqueued, NewTask, SessionId, ShownStatus, TurnId, UserId

ScheduleId = NewType("ScheduleId", str)
ScheduleKind = Literal["at", "every", "cron"]
MissedPolicy = Literal["skip", "latest", "all"]
RunOutcome = Literal["fired", "skipped", "refused"]


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task that comes again. `expression`: an ISO time (at), seconds (every) or five fields (cron), read in `zone`.

    `anchor_us` is where `every` counts from. `request` says what each run asks, as JSON. Runs go to `session_id`, each
    to a session of its own without it. `next_run_us` is None while paused and after the last run. `revision` grows
    with every change but not by firing.
    """

    schedule_id: ScheduleId
    user_id: UserId
    name: str
    kind: ScheduleKind
    expression: str
    zone: str
    anchor_us: int
    request: bytes
    session_id: SessionId | None = None
    missed: MissedPolicy = "latest"
    grace_us: int
    paused: bool = False
    pause_reason: str | None = None
    next_run_us: int | None
    last_run_us: int | None = None
    runs: int = 0
    revision: int = 0
    created_us: int
    updated_us: int


class ScheduleRun(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a due time. `skipped`: `missed` due times (counted up to a bound) from `due_us` to `until_us`.

    `refused` has its `error` {"code", "message"}. A `fired` one has its task, with `session_id` and `status` if it is
    still there.
    """

    schedule_id: ScheduleId
    due_us: int
    fired_us: int
    outcome: RunOutcome
    manual: bool = False
    turn_id: TurnId | None = None
    missed: int = 0
    until_us: int | None = None
    error: bytes | None = None
    session_id: SessionId | None = None
    status: ShownStatus | None = None


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a schedule: from `schedule.next_run_us` to `next_run_us`, by running `due_us` with `item`, or by
    skipping what `skipped` says, or both."""

    schedule: ScheduleRecord
    next_run_us: int | None
    due_us: int | None = None
    item: NewTask | None = None
    skipped: ScheduleRun | None = None


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a `Firing`: `lost` (somebody else took the due time, or changed the schedule: nothing was
    written), `skipped`, `fired` with what was enqueued, or `refused`: its session is gone, and it is paused."""

    outcome: Literal["lost", "skipped", "fired", "refused"]
    enqueued: Enqueued | None = None
