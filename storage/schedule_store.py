"""`ScheduleStorage`: what schedules ask of a database (a part of `AsyncStorageBackend`)."""

from __future__ import annotations

from typing import Protocol

from storage.records import Enqueued, NewTask, UserId
from storage.schedule_records import Fired, Firing, ScheduleId, ScheduleRecord, ScheduleRun


class ScheduleStorage(Protocol):
    """Schedules, and the history of their runs."""

    async def create_schedule(self, schedule: ScheduleRecord, *, most: int) -> ScheduleRecord | None:
        """Add a schedule, or give the one that has this id; None if its user has `most` of them already.

        `Conflict` if the id is another user's.
        """

    async def get_schedule(self, schedule_id: ScheduleId) -> ScheduleRecord | None: ...
    async def list_schedules(
        self, user_id: UserId | None, *, before: tuple[int, str] | None, limit: int
    ) -> list[ScheduleRecord]:
        """Newest first, older than `before` (created_us, schedule_id); every user's with `user_id=None`."""

    async def update_schedule(self, schedule: ScheduleRecord, *, set_next_run: bool) -> ScheduleRecord | None:
        """Write what can be changed of a schedule if its revision is still `schedule.revision`; else None."""

    async def delete_schedule(self, schedule_id: ScheduleId) -> bool:
        """Remove a schedule with its history; its tasks stay."""

    async def due_schedules(self, now_us: int, *, after: tuple[int, str] | None, limit: int) -> list[ScheduleRecord]:
        """Those whose time has come, the longest due first, behind `after` (next_run_us, schedule_id)."""

    async def next_schedule_due(self, after_us: int) -> int | None:
        """The next due time of all after this."""

    async def count_active_schedules(self) -> int:
        """How many wait for a due time."""

    async def fire_schedule(self, firing: Firing, *, now_us: int) -> Fired:
        """Advance a schedule, enqueue its task and write its history, in one transaction.

        Of concurrent callers that saw the same due time exactly one advances it, the others get `lost`. A repetition
        after a lost answer is `lost` too.
        """

    async def refuse_run(self, run: ScheduleRun) -> None:
        """Note that a due time could not be run now; nothing if the schedule is gone or this is known."""

    async def run_schedule(self, schedule_id: ScheduleId, item: NewTask, *, now_us: int) -> Enqueued | None:
        """Enqueue a task of a schedule besides its due times; None if there is no such schedule."""

    async def queued_runs(self, since_us: int) -> list[Enqueued]:
        """Tasks that were fired since then and wait for the owner of their session, who may not know of them."""

    async def list_runs(self, schedule_id: ScheduleId, *, before_us: int | None, limit: int) -> list[ScheduleRun]:
        """History with `due_us` below `before_us`, the newest first."""

    async def delete_old_runs(self, before_us: int, *, limit: int) -> int:
        """Retention: remove history from before, at most `limit` rows a call."""
