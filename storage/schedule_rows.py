"""Rows of schedules to records and back."""

from __future__ import annotations

from typing import Any

from storage.database import Row
from storage.rows import json_text, plain_text
from storage.schedule_records import ScheduleRecord, ScheduleRun


def schedule_record(row: Row) -> ScheduleRecord:
    """A row with the columns of {schedule}."""
    return ScheduleRecord(
        schedule_id=row["schedule_id"],
        user_id=row["user_id"],
        name=row["name"],
        kind=row["kind"],
        expression=row["expression"],
        zone=row["zone"],
        anchor_us=row["anchor_us"],
        request=row["request"].encode(),
        session_id=row["session_id"],
        missed=row["missed"],
        grace_us=row["grace_us"],
        paused=bool(row["paused"]),
        pause_reason=row["pause_reason"],
        next_run_us=row["next_run_us"],
        last_run_us=row["last_run_us"],
        runs=row["runs"],
        revision=row["revision"],
        created_us=row["created_us"],
        updated_us=row["updated_us"],
    )


def schedule_run(row: Row) -> ScheduleRun:
    """A row of list_runs."""
    return ScheduleRun(
        schedule_id=row["schedule_id"],
        due_us=row["due_us"],
        fired_us=row["fired_us"],
        outcome=row["outcome"],
        manual=bool(row["manual"]),
        turn_id=row["turn_id"],
        missed=row["missed"],
        until_us=row["until_us"],
        error=row["error"].encode() if row["error"] is not None else None,
        session_id=row["session_id"],
        status=row["status"],
    )


def new_schedule_params(schedule: ScheduleRecord) -> tuple[Any, ...]:
    """Parameters of create_schedule."""
    return (
        schedule.schedule_id,
        schedule.user_id,
        *_definition(schedule),
        schedule.paused,
        schedule.pause_reason,
        schedule.next_run_us,
        schedule.created_us,
        schedule.updated_us,
    )


def update_params(schedule: ScheduleRecord, *, set_next_run: bool) -> tuple[Any, ...]:
    """Parameters of update_schedule."""
    return (
        schedule.schedule_id,
        schedule.revision,
        *_definition(schedule),
        schedule.paused,
        schedule.pause_reason,
        schedule.updated_us,
        set_next_run,
        schedule.next_run_us,
    )


def run_params(run: ScheduleRun) -> tuple[Any, ...]:
    """Parameters of record_run."""
    return (
        run.schedule_id,
        run.due_us,
        run.fired_us,
        run.manual,
        run.outcome,
        run.turn_id,
        run.missed,
        run.until_us,
        json_text(run.error),
    )


def _definition(schedule: ScheduleRecord) -> tuple[Any, ...]:
    return (
        plain_text(schedule.name),
        schedule.kind,
        schedule.expression,
        schedule.zone,
        schedule.anchor_us,
        schedule.request.decode(),
        schedule.session_id,
        schedule.missed,
        schedule.grace_us,
    )
