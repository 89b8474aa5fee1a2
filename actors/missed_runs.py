"""What a schedule does now about the due times that have come: pure. Usually one has, and it is run.

skip     the newest is run if it is not older than the grace; the rest is skipped
latest   the newest is run, however old it is; the rest is skipped
all      each is run, the oldest first; of more than MOST the oldest are skipped
"""

from __future__ import annotations

from itertools import islice, takewhile

import msgspec

from actors.recurrence import due_times, newest_due, next_due, recurrence_of
from storage.schedule_records import ScheduleRecord, ScheduleRun

MOST = 100
"""Runs that `all` makes up for."""
MOST_COUNTED = 1000
"""Skipped due times are counted so far."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Run `due_us` (if any), note what is `skipped` (if any), and come again at `next_run_us`."""

    due_us: int | None
    next_run_us: int | None
    skipped: ScheduleRun | None = None


def decide(schedule: ScheduleRecord, now_us: int) -> Decision | None:
    """What to do now; None if nothing is due."""
    first_us = schedule.next_run_us
    if first_us is None or first_us > now_us:
        return None
    recurrence = recurrence_of(schedule)
    kept = newest_due(recurrence, first_us, now_us, MOST if schedule.missed == "all" else 1)
    if schedule.missed == "skip" and now_us - kept[0] > schedule.grace_us:
        due_us, until_us = None, kept[0]
    else:
        due_us, until_us = kept[0], kept[0] - 1
    return Decision(
        due_us=due_us,
        next_run_us=kept[1] if len(kept) > 1 else next_due(recurrence, kept[0]),
        skipped=_skipped(schedule, first_us, until_us, now_us),
    )


def _skipped(schedule: ScheduleRecord, first_us: int, until_us: int, now_us: int) -> ScheduleRun | None:
    """The due times from `first_us` to `until_us`, as one entry of the history."""
    if first_us > until_us:
        return None
    recurrence = recurrence_of(schedule)
    later = takewhile(lambda due_us: due_us <= until_us, due_times(recurrence, first_us))
    return ScheduleRun(
        schedule_id=schedule.schedule_id,
        due_us=first_us,
        fired_us=now_us,
        outcome="skipped",
        missed=1 + sum(1 for _ in islice(later, MOST_COUNTED - 1)),
        until_us=newest_due(recurrence, first_us, until_us, 1)[0],
    )
