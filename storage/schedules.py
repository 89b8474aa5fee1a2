"""Schedules: who advances a due time enqueues its task, in one transaction.

lock by UPDATE ... WHERE next_run_us = what was seen AND revision = what was seen   ──► 0 rows: lost, nothing written
    └──► task into its session's line ──► history ──► commit          a crash before the commit: still due
"""

from __future__ import annotations

import msgspec

from storage.database import Runner
from storage.errors import Conflict
from storage.records import Enqueued, NewTask, TurnId, UserId
from storage.rows import plain_text, task_record
from storage.schedule_records import Fired, Firing, ScheduleId, ScheduleRecord, ScheduleRun
from storage.schedule_rows import new_schedule_params, run_params, schedule_record, schedule_run, update_params
from storage.task_queue import enqueue_into
from storage.topic import StoreTopic

_NEWEST = (2**62, "\uffff")
_OLDEST = (-(2**62), "")
_SESSION_GONE = "its session was deleted"


class ScheduleTopic(StoreTopic):
    """`ScheduleStorage` in SQL."""

    async def create_schedule(self, schedule: ScheduleRecord, *, most: int) -> ScheduleRecord | None:
        async def body(tx: Runner) -> ScheduleRecord | None:
            row = await tx.fetchrow("get_schedule", schedule.schedule_id)
            if row is not None:
                return schedule_record(row)
            count = await tx.fetchrow("count_user_schedules", schedule.user_id)
            if count is not None and count["schedules"] >= most:
                return None
            added = await tx.execute("create_schedule", *new_schedule_params(schedule))
            row = None if added else await tx.fetchrow("get_schedule", schedule.schedule_id)
            return schedule_record(row) if row is not None else schedule

        stored = await self._db.transact(body)
        if stored is not None and stored.user_id != schedule.user_id:
            raise Conflict("this id is taken", field="schedule_id")
        return stored

    async def get_schedule(self, schedule_id: ScheduleId) -> ScheduleRecord | None:
        row = await self._db.fetchrow("get_schedule", schedule_id)
        return None if row is None else schedule_record(row)

    async def list_schedules(
        self, user_id: UserId | None, *, before: tuple[int, str] | None, limit: int
    ) -> list[ScheduleRecord]:
        args = (*(before or _NEWEST), limit)
        if user_id is None:
            rows = await self._db.fetch("list_schedules", *args)
        else:
            rows = await self._db.fetch("list_user_schedules", *args, user_id)
        return [schedule_record(row) for row in rows]

    async def update_schedule(self, schedule: ScheduleRecord, *, set_next_run: bool) -> ScheduleRecord | None:
        row = await self._db.fetchrow("update_schedule", *update_params(schedule, set_next_run=set_next_run))
        return None if row is None else schedule_record(row)

    async def delete_schedule(self, schedule_id: ScheduleId) -> bool:
        async def body(tx: Runner) -> bool:
            existed = await tx.execute("delete_schedule", schedule_id) > 0
            await tx.execute("delete_schedule_runs", schedule_id)
            return existed

        return await self._db.transact(body)

    async def due_schedules(self, now_us: int, *, after: tuple[int, str] | None, limit: int) -> list[ScheduleRecord]:
        rows = await self._db.fetch("due_schedules", now_us, *(after or _OLDEST), limit)
        return [schedule_record(row) for row in rows]

    async def next_schedule_due(self, after_us: int) -> int | None:
        row = await self._db.fetchrow("next_schedule_due", after_us)
        return None if row is None else row["next_run_us"]

    async def count_active_schedules(self) -> int:
        row = await self._db.fetchrow("count_active_schedules")
        return 0 if row is None else int(row["schedules"])

    async def fire_schedule(self, firing: Firing, *, now_us: int) -> Fired:
        async def body(tx: Runner) -> Fired:
            if not await advance(tx, firing):
                return Fired(outcome="lost")
            if firing.skipped is not None:
                await tx.execute("record_run", *run_params(firing.skipped))
            if firing.item is None or firing.due_us is None:
                return Fired(outcome="skipped")
            return await _run(tx, firing, firing.item, firing.due_us, now_us)

        return await self._db.transact(body)

    async def refuse_run(self, run: ScheduleRun) -> None:
        async def body(tx: Runner) -> None:
            if await tx.fetchrow("lock_schedule", run.schedule_id) is not None:
                await tx.execute("record_run", *run_params(run))

        await self._db.transact(body)

    async def run_schedule(self, schedule_id: ScheduleId, item: NewTask, *, now_us: int) -> Enqueued | None:
        async def body(tx: Runner) -> Enqueued | None:
            if await tx.fetchrow("lock_schedule", schedule_id) is None:
                return None
            enqueued = await enqueue_into(tx, item, now_us)
            if enqueued is None or enqueued.task is None:
                return enqueued or Enqueued(task=item.task)  # an earlier try, whose answer was lost, has recorded it
            run = ScheduleRun(
                schedule_id=schedule_id,
                due_us=now_us,
                fired_us=now_us,
                outcome="fired",
                manual=True,
                turn_id=item.task.turn_id,
            )
            await tx.execute("record_run", *run_params(run))
            await tx.execute("count_run", schedule_id, now_us)
            return enqueued

        return await self._db.transact(body)

    async def queued_runs(self, since_us: int) -> list[Enqueued]:
        rows = await self._db.fetch("queued_runs", since_us)
        return [Enqueued(task=task_record(row), owner_id=row["owner_id"]) for row in rows]

    async def list_runs(self, schedule_id: ScheduleId, *, before_us: int | None, limit: int) -> list[ScheduleRun]:
        before = _NEWEST[0] if before_us is None else before_us
        return [schedule_run(row) for row in await self._db.fetch("list_runs", schedule_id, before, limit)]

    async def delete_old_runs(self, before_us: int, *, limit: int) -> int:
        return await self._db.execute("delete_old_runs", before_us, limit)


async def advance(tx: Runner, firing: Firing) -> bool:
    """Take the due time that was seen; False if somebody else has, or the schedule is not what it was."""
    seen = firing.schedule
    runs = 0 if firing.item is None else 1
    args = (seen.schedule_id, seen.next_run_us, seen.revision, firing.next_run_us, firing.due_us, runs)
    return await tx.execute("advance_schedule", *args) > 0


async def _run(tx: Runner, firing: Firing, item: NewTask, due_us: int, now_us: int) -> Fired:
    schedule_id = firing.schedule.schedule_id
    run = ScheduleRun(
        schedule_id=schedule_id, due_us=due_us, fired_us=now_us, outcome="fired", turn_id=item.task.turn_id
    )
    enqueued = await enqueue_into(tx, item, now_us)
    if enqueued is None:
        # The user has sent a task with this very key before: that one is the run.
        earlier = await tx.fetchrow("find_idempotent", item.task.user_id, plain_text(item.task.idempotency_key))
        turn_id = TurnId(earlier["turn_id"]) if earlier is not None else None
        await tx.execute("record_run", *run_params(msgspec.structs.replace(run, turn_id=turn_id)))
        return Fired(outcome="fired")
    if enqueued.task is None:
        await tx.execute("pause_schedule", schedule_id, _SESSION_GONE, now_us)
        error = msgspec.json.encode({"code": "SESSION_NOT_FOUND", "message": _SESSION_GONE})
        refused = msgspec.structs.replace(run, outcome="refused", turn_id=None, error=error)
        await tx.execute("record_run", *run_params(refused))
        return Fired(outcome="refused")
    await tx.execute("record_run", *run_params(run))
    return Fired(outcome="fired", enqueued=enqueued)
