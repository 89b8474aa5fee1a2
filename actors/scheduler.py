"""Fires schedules: looks for due ones when the next is due, when one was changed, and now and then in any case.

    due? ──► decide (missed_runs) ──► one transaction: advance, task, history ──► pools or the session's owner are woken
                                           │ somebody else was faster: lost, nothing was written
    the queue is full: the due time stays due, and is tried again every `schedules.retry_s`

Any number of schedulers may run at the same time: the transaction lets one of them have each due time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from actors.clock import Clock
from actors.errors import StorageUnavailable, WunderError
from actors.logs import log
from actors.loop import Loop
from actors.missed_runs import Decision, decide
from actors.scheduled_task import run_of
from actors.settings import ActorSettings
from actors.task_intake import TaskIntake
from storage.records import Enqueued, QueueDepth
from storage.schedule_records import Fired, Firing, ScheduleId, ScheduleRecord, ScheduleRun
from storage.store import AsyncStorageBackend

_BATCH = 200
_PARALLEL = 8
_COUNT_EVERY_S = 10.0
_REMIND_US = 3600 * 1_000_000


class SchedulerCounts(msgspec.Struct):
    """What became of due times since this process started; `lag_seconds` is that of the last run that was fired."""

    active: int = 0
    fired: int = 0
    missed: int = 0
    refused: int = 0
    lost: int = 0
    lag_seconds: float = 0.0


class Scheduler:
    """One look at a time; `wake` asks for the next one now."""

    def __init__(self, settings: ActorSettings, store: AsyncStorageBackend, clock: Clock, intake: TaskIntake) -> None:
        self._settings = settings.schedules
        self._store = store
        self._clock = clock
        self._intake = intake
        self.counts = SchedulerCounts()
        self.look_in_s: float | None = None
        self._counted_s = float("-inf")
        self._reminded = False
        self._refused: dict[ScheduleId, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = Loop("schedules", self.fire_once, interval_s=settings.schedules.poll_interval_s)

    def start(self) -> None:
        self._loop.start()

    def wake(self) -> None:
        self._loop.wake()

    async def stop(self) -> None:
        await self._loop.stop()
        self._set_timer(None)
        await self._intake.close()

    def gauges(self) -> dict[str, float]:
        """For `Describe`."""
        return {f"schedules_{name}": float(value) for name, value in msgspec.structs.asdict(self.counts).items()}

    async def fire_once(self) -> None:
        """Fire everything that is due, then have itself woken when the next one is."""
        self._set_timer(self._settings.retry_s)  # if this look fails
        now_us = self._clock.now_us()
        if not self._reminded:
            # The one before may have died after a commit, before it told the owner of the session.
            self._intake.announce(await self._store.queued_runs(now_us - _REMIND_US))
            self._reminded = True
        after: tuple[int, str] | None = None
        refused: dict[ScheduleId, int] = {}
        while True:
            page = await self._store.due_schedules(now_us, after=after, limit=_BATCH)
            refused |= await self._fire_page(page, now_us)
            if len(page) < _BATCH:
                break
            after = (page[-1].next_run_us or 0, page[-1].schedule_id)
        self._refused = refused
        self._set_timer(await self._next_look_s(now_us))
        await self._count()

    async def _next_look_s(self, now_us: int) -> float | None:
        due_us = await self._store.next_schedule_due(now_us)
        due_s = None if due_us is None else max(0.0, (due_us - self._clock.now_us()) / 1e6)
        retry_s = self._settings.retry_s if self._refused else None
        return min((s for s in (due_s, retry_s) if s is not None), default=None)

    def _set_timer(self, in_s: float | None) -> None:
        self.look_in_s = in_s
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if in_s is not None and in_s < self._settings.poll_interval_s:
            self._timer = asyncio.get_running_loop().call_later(in_s, self._loop.wake)

    async def _fire_page(self, page: Sequence[ScheduleRecord], now_us: int) -> dict[ScheduleId, int]:
        """Fire these, some at the same time; those that have to wait, with the due time that waits."""
        if not page:
            return {}
        users = list({schedule.user_id for schedule in page})
        depth = _Depth(self._intake, await self._intake.depth(users))
        limit = asyncio.Semaphore(_PARALLEL)

        async def fire(schedule: ScheduleRecord) -> int | None:
            async with limit:
                return await self._fire(schedule, depth, now_us)

        outcomes = await asyncio.gather(*(fire(schedule) for schedule in page), return_exceptions=True)
        self._intake.announce(depth.enqueued)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return {
            schedule.schedule_id: due_us
            for schedule, due_us in zip(page, outcomes, strict=True)
            if isinstance(due_us, int)
        }

    async def _fire(self, schedule: ScheduleRecord, depth: _Depth, now_us: int) -> int | None:
        """Run what of one schedule was due when the look began; the due time if it has to be tried again."""
        try:
            while (decision := decide(schedule, now_us)) is not None:
                full = None if decision.due_us is None else depth.take(schedule)
                if full is not None:
                    return await self._refuse(schedule, full)
                fired = await self._take(schedule, decision, depth)
                if fired.outcome not in ("fired", "skipped"):
                    return None
                schedule = msgspec.structs.replace(schedule, next_run_us=decision.next_run_us)
        except StorageUnavailable:
            raise
        except Exception as error:
            # Whatever is wrong with this one, the others are run.
            log.exception("schedule_failed", error, schedule=schedule.schedule_id)
            return await self._refuse(schedule, WunderError("it could not be run; the server's log says why"))
        return None

    async def _take(self, schedule: ScheduleRecord, decision: Decision, depth: _Depth) -> Fired:
        due_us, now_us = decision.due_us, self._clock.now_us()
        item = None
        if due_us is not None:
            item = self._intake.new_task(run_of(schedule, due_us, self._clock), depth.total, now_us)
        firing = Firing(
            schedule=schedule,
            next_run_us=decision.next_run_us,
            due_us=due_us,
            item=item,
            skipped=decision.skipped,
        )
        fired = await self._store.fire_schedule(firing, now_us=now_us)
        self._account(schedule, decision, fired, now_us)
        if fired.enqueued is not None:
            depth.enqueued.append(fired.enqueued)
        return fired

    def _account(self, schedule: ScheduleRecord, decision: Decision, fired: Fired, now_us: int) -> None:
        counts = self.counts
        if fired.outcome == "lost":
            counts.lost += 1
            return
        if decision.skipped is not None:
            counts.missed += decision.skipped.missed
            log.warning("schedule_missed", schedule=schedule.schedule_id, missed=decision.skipped.missed)
        if fired.outcome == "fired" and decision.due_us is not None:
            counts.fired += 1
            counts.lag_seconds = max(0, now_us - decision.due_us) / 1e6
        elif fired.outcome == "refused":
            counts.refused += 1
            log.warning("schedule_paused", schedule=schedule.schedule_id, reason="its session was deleted")

    async def _refuse(self, schedule: ScheduleRecord, error: WunderError) -> int:
        """The oldest due time stays due; the history says why, once."""
        due_us = schedule.next_run_us or 0
        if self._refused.get(schedule.schedule_id) != due_us:
            self.counts.refused += 1
            log.warning("schedule_refused", schedule=schedule.schedule_id, message=error.message)
            run = ScheduleRun(
                schedule_id=schedule.schedule_id,
                due_us=due_us,
                fired_us=self._clock.now_us(),
                outcome="refused",
                error=msgspec.json.encode({"code": error.code, "message": error.message}),
            )
            await self._store.refuse_run(run)
        return due_us

    async def _count(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._counted_s >= _COUNT_EVERY_S:
            self.counts.active = await self._store.count_active_schedules()
            self._counted_s = now_s


class _Depth:
    """How full the queue is, with what this look has put into it."""

    def __init__(self, intake: TaskIntake, depth: QueueDepth) -> None:
        self._intake = intake
        self._by_user = depth.by_user
        self.total = depth.total
        self.enqueued: list[Enqueued] = []

    def take(self, schedule: ScheduleRecord) -> WunderError | None:
        """A place for one more task, or why there is none."""
        error = self._intake.full(schedule.user_id, QueueDepth(total=self.total, by_user=self._by_user))
        if error is None:
            self.total += 1
            self._by_user[schedule.user_id] += 1
        return error
