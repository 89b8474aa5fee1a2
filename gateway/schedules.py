"""Schedules on behalf of clients: checked, stored, changed, run by hand; and the scheduler is told."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET

from actors.background import Background
from actors.clock import Clock
from actors.directory import JANITOR
from actors.errors import Conflict, InvalidRequest, NotFound, SessionNotFound, UserQuotaExceeded, WunderError
from actors.gathering import Gathering
from actors.handles import Reach, tell
from actors.logs import log
from actors.messages import ScheduleChanged
from actors.recurrence import Recurrence, next_due, recurrence_of
from actors.scheduled_task import ScheduledTask, request_of, run_of
from actors.task_intake import Recorded, TaskIntake
from gateway.protocol import ScheduleBody, TurnOptions, UpdateScheduleBody
from gateway.schedule_spec import recurrence_from
from gateway.settings import Settings
from gateway.turns import Turns
from storage.records import SessionId, UserId
from storage.schedule_records import ScheduleId, ScheduleRecord
from storage.store import AsyncStorageBackend

_TRIES = 5
_REQUEST_FIELDS = ScheduledTask.__struct_fields__


class Schedules:
    """Makes, changes and removes schedules; the janitor's scheduler fires them."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncStorageBackend,
        clock: Clock,
        reach: Reach,
        intake: TaskIntake,
        turns: Turns,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._reach = reach
        self._intake = intake
        self._turns = turns
        self._changes: Gathering[None, None] = Gathering("schedule-changes", self._tell_scheduler)
        self._background = Background()

    async def close(self) -> None:
        await self._changes.stop()
        await self._background.stop()

    async def create(self, user_id: UserId, body: ScheduleBody) -> ScheduleRecord:
        """Store a schedule; when this returns it is durable. A repeated idempotency key gives the first one."""
        schedule_id = self._id(user_id, body.idempotency_key)
        if body.idempotency_key is not None and (known := await self._store.get_schedule(schedule_id)) is not None:
            return known
        self._turns.check(body, body.agent_id)
        await self._check_session(user_id, body.session_id)
        now_us = self._clock.now_us()
        recurrence = recurrence_from(at=body.at, every=body.every, cron=body.cron, zone=body.zone, now_us=now_us)
        grace_s = self._settings.schedules.grace_s if body.grace_s is None else body.grace_s
        wanted = ScheduleRecord(
            schedule_id=schedule_id,
            user_id=user_id,
            name=body.name,
            request=self._encoded(_scheduled_task({name: getattr(body, name) for name in _REQUEST_FIELDS})),
            session_id=SessionId(body.session_id) if body.session_id else None,
            missed=body.missed,
            grace_us=round(grace_s * 1e6),
            paused=body.paused,
            next_run_us=None if body.paused else next_due(recurrence, now_us),
            created_us=now_us,
            updated_us=now_us,
            **msgspec.structs.asdict(recurrence),
        )
        most = self._settings.schedules.max_per_user
        stored = await self._store.create_schedule(wanted, most=most)
        if stored is None:
            detail = {"reason": "too_many_schedules", "schedules": most}
            raise UserQuotaExceeded("too many schedules: delete one that is not needed", detail=detail)
        self._announce()
        return stored

    async def change(self, schedule: ScheduleRecord, body: UpdateScheduleBody) -> ScheduleRecord:
        """Change what the body says of a schedule; the rest is as it was, also if somebody changed it meanwhile."""
        for _ in range(_TRIES):
            wanted, set_next_run = self._merged(schedule, body)
            if body.session_id is not UNSET or (schedule.paused and not wanted.paused):
                await self._check_session(wanted.user_id, wanted.session_id)
            changed = await self._store.update_schedule(wanted, set_next_run=set_next_run)
            if changed is not None:
                self._announce()
                return changed
            found = await self._store.get_schedule(schedule.schedule_id)
            if found is None:
                raise NotFound("there is no such schedule")
            schedule = found
        raise Conflict("the schedule is being changed by others; try again")

    async def delete(self, schedule: ScheduleRecord) -> bool:
        """Remove a schedule with its history."""
        return await self._store.delete_schedule(schedule.schedule_id)

    async def run(self, schedule: ScheduleRecord) -> Recorded:
        """Queue a task of this schedule now; its due times stay as they are."""
        depth = await self._intake.depth([schedule.user_id])
        full = self._intake.full(schedule.user_id, depth)
        if full is not None:
            raise full
        now_us = self._clock.now_us()
        item = self._intake.new_task(run_of(schedule, None, self._clock), depth.total + 1, now_us)
        enqueued = await self._store.run_schedule(schedule.schedule_id, item, now_us=now_us)
        if enqueued is None:
            raise NotFound("there is no such schedule")
        if enqueued.task is None:
            raise SessionNotFound("the session of this schedule was deleted")
        self._intake.announce([enqueued])
        return Recorded(enqueued.task, depth.total + 1)

    def _id(self, user_id: UserId, key: str | None) -> ScheduleId:
        if key is None:
            return ScheduleId(self._clock.new_id("sch"))
        digest = hashlib.sha256(f"{user_id}\0{key}".encode()).hexdigest()
        return ScheduleId(f"sch_{digest[:32]}")

    async def _check_session(self, user_id: UserId, session_id: str | None) -> None:
        """`SessionNotFound` for a session that the runs could not go to."""
        if session_id is None:
            return
        session = await self._store.get_session(SessionId(session_id))
        if session is None or session.user_id != user_id:
            raise SessionNotFound("there is no such session")

    def _merged(self, schedule: ScheduleRecord, body: UpdateScheduleBody) -> tuple[ScheduleRecord, bool]:
        """The schedule with the changes, and whether its next due time is another one."""
        now_us = self._clock.now_us()
        recurrence = _recurrence(schedule, body, now_us)
        paused = schedule.paused if body.paused is UNSET else body.paused
        set_next_run = paused != schedule.paused or recurrence != recurrence_of(schedule)
        next_run_us = None if paused else next_due(recurrence, now_us)
        if set_next_run and not paused and next_run_us is None:
            raise InvalidRequest("paused: expected a time to come (at, every or cron), got none", field="paused")
        changes = {name: value for name in ("name", "missed") if (value := getattr(body, name)) is not UNSET}
        if body.session_id is not UNSET:
            changes["session_id"] = body.session_id
        if body.grace_s is not UNSET:
            changes["grace_us"] = round(body.grace_s * 1e6)
        if paused != schedule.paused:
            changes["pause_reason"] = None
        request = self._request(schedule, body)
        merged = msgspec.structs.replace(
            schedule,
            request=self._encoded(request),
            paused=paused,
            next_run_us=next_run_us,
            updated_us=now_us,
            **msgspec.structs.asdict(recurrence),
            **changes,
        )
        return merged, set_next_run

    def _request(self, schedule: ScheduleRecord, body: UpdateScheduleBody) -> ScheduledTask:
        before = msgspec.structs.asdict(request_of(schedule))
        after = {n: before[n] if (value := getattr(body, n)) is UNSET else value for n in _REQUEST_FIELDS}
        request = _scheduled_task(after)
        self._turns.check(TurnOptions(model_name=request.model_name, tool_names=request.tool_names), request.agent_id)
        return request

    def _encoded(self, request: ScheduledTask) -> bytes:
        encoded, most = msgspec.json.encode(request), self._settings.schedules.max_task_bytes
        if len(encoded) > most:
            field = "attachments" if request.attachments else "question"
            what = f"{field}: expected at most {most} bytes of JSON for what each run asks, got {len(encoded)}"
            raise InvalidRequest(what, field=field)
        return encoded

    def _announce(self) -> None:
        self._background.start(self._changes.ask(None), "schedule-changed")

    async def _tell_scheduler(self, changes: list[None]) -> list[None]:
        try:
            await tell(self._reach.actor(JANITOR), ScheduleChanged())
        except WunderError as error:
            # It looks by itself every schedules.poll_interval_s.
            log.warning("scheduler_not_told", message=error.message)
        return changes


def _scheduled_task(fields: dict[str, Any]) -> ScheduledTask:
    return msgspec.convert(msgspec.to_builtins(fields), ScheduledTask)


def _recurrence(schedule: ScheduleRecord, body: UpdateScheduleBody, now_us: int) -> Recurrence:
    """When it is due after the change."""
    given = {name: getattr(body, name) for name in ("at", "every", "cron")}
    if body.zone is UNSET and all(value is None for value in given.values()):
        return recurrence_of(schedule)
    if all(value is None for value in given.values()):
        given[schedule.kind] = _said(schedule)
    zone = schedule.zone if body.zone is UNSET else body.zone
    recurrence = recurrence_from(**given, zone=zone, now_us=now_us)
    before = recurrence_of(schedule)
    if msgspec.structs.replace(recurrence, anchor_us=before.anchor_us) == before:
        return before
    return recurrence


def _said(schedule: ScheduleRecord) -> datetime | float | str:
    """The expression as a client gives it."""
    if schedule.kind == "at":
        return datetime.fromisoformat(schedule.expression)
    return float(schedule.expression) if schedule.kind == "every" else schedule.expression
