"""HTTP handlers of /wunder/cron: make, list, inspect, change, delete, run now, history."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec
from aiohttp import web

from actors.errors import NotFound
from actors.recurrence import due_times, recurrence_of
from gateway.auth import Auth, Principal
from gateway.http_chat import number
from gateway.http_common import ok, read_json
from gateway.pages import next_cursor, page_cursor, time_of
from gateway.protocol import ScheduleBody, UpdateScheduleBody
from gateway.schedules import Schedules
from storage.schedule_records import ScheduleId, ScheduleRecord, ScheduleRun
from storage.store import AsyncStorageBackend

_UPCOMING = 3


class ScheduleHandlers:
    """What the schedule routes need."""

    def __init__(self, store: AsyncStorageBackend, auth: Auth, schedules: Schedules) -> None:
        self._store = store
        self._auth = auth
        self._schedules = schedules

    async def create(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, ScheduleBody)
        schedule = await self._schedules.create(self._auth.acting_user(principal, body.user_id), body)
        return ok(schedule_view(schedule), 201)

    async def list(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        query = request.query
        everybody = principal.is_admin and query.get("user_id") == "*"
        schedules = await self._store.list_schedules(
            None if everybody else self._auth.acting_user(principal, query.get("user_id")),
            before=page_cursor(query.get("cursor")),
            limit=(limit := number(query, "limit", default=50, low=1, high=200)),
        )
        last = schedules[-1] if len(schedules) == limit else None
        following = next_cursor(last.created_us, last.schedule_id) if last else None
        return ok({"items": [schedule_view(one) for one in schedules], "next": following})

    async def inspect(self, request: web.Request) -> web.Response:
        return ok(schedule_view(await self._visible(request)))

    async def update(self, request: web.Request) -> web.Response:
        schedule = await self._visible(request)
        body = await read_json(request, UpdateScheduleBody)
        return ok(schedule_view(await self._schedules.change(schedule, body)))

    async def delete(self, request: web.Request) -> web.Response:
        schedule = await self._visible(request)
        return ok({"deleted": await self._schedules.delete(schedule), "schedule_id": schedule.schedule_id})

    async def run(self, request: web.Request) -> web.Response:
        recorded = await self._schedules.run(await self._visible(request))
        task = recorded.task
        data = {"task_id": task.turn_id, "session_id": task.session_id, "status": task.status}
        return ok({**data, "position": recorded.position}, 202)

    async def history(self, request: web.Request) -> web.Response:
        schedule = await self._visible(request)
        before = page_cursor(request.query.get("cursor"))
        runs = await self._store.list_runs(
            schedule.schedule_id,
            before_us=before[0] if before else None,
            limit=(limit := number(request.query, "limit", default=50, low=1, high=200)),
        )
        following = next_cursor(runs[-1].due_us, schedule.schedule_id) if len(runs) == limit else None
        return ok({"items": [run_view(run) for run in runs], "next": following})

    async def _visible(self, request: web.Request) -> ScheduleRecord:
        """The schedule in the path; for anybody else it does not exist."""
        principal: Principal = await self._auth.authenticate(request)
        schedule = await self._store.get_schedule(ScheduleId(request.match_info["schedule_id"]))
        if schedule is None or not principal.may_see(schedule.user_id):
            raise NotFound("there is no such schedule")
        return schedule


def schedule_view(schedule: ScheduleRecord) -> dict[str, Any]:
    """A schedule as the API shows it."""
    kind, said = schedule.kind, schedule.expression
    return {
        "schedule_id": schedule.schedule_id,
        "user_id": schedule.user_id,
        "name": schedule.name,
        "at": said if kind == "at" else None,
        "every": float(said) if kind == "every" else None,
        "cron": said if kind == "cron" else None,
        "zone": schedule.zone,
        "missed": schedule.missed,
        "grace_s": schedule.grace_us / 1e6,
        "session_id": schedule.session_id,
        "task": msgspec.Raw(schedule.request),
        "paused": schedule.paused,
        "pause_reason": schedule.pause_reason,
        "next_run_at": time_of(schedule.next_run_us),
        "upcoming": [time_of(due_us) for due_us in _upcoming(schedule)],
        "last_run_at": time_of(schedule.last_run_us),
        "runs": schedule.runs,
        "created_at": time_of(schedule.created_us),
        "updated_at": time_of(schedule.updated_us),
    }


def _upcoming(schedule: ScheduleRecord) -> list[int]:
    if schedule.next_run_us is None:
        return []
    later = islice(due_times(recurrence_of(schedule), schedule.next_run_us), _UPCOMING - 1)
    return [schedule.next_run_us, *later]


def run_view(run: ScheduleRun) -> dict[str, Any]:
    """An entry of the history as the API shows it."""
    return {
        "due_at": time_of(run.due_us),
        "fired_at": time_of(run.fired_us),
        "outcome": run.outcome,
        "manual": run.manual,
        "task_id": run.turn_id,
        "session_id": run.session_id,
        "task_status": run.status,
        "missed": run.missed,
        "until": time_of(run.until_us),
        "error": msgspec.Raw(run.error) if run.error else None,
    }
