"""The scheduler with a clock that is moved by hand: what it fires when, and whom it tells."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors import scheduler as module
from actors.errors import StorageUnavailable
from actors.handles import DirectoryHandle, tell
from actors.janitor import Janitor
from actors.messages import AnyCommand, Locate, PickUp, ScheduleChanged, WakePools
from actors.replies import Done, Location, Reply
from actors.settings import ActorSettings, AgentQueueSettings, SchedulesSettings
from actors.task_request import request_of
from actors.wiring import create_children, create_scheduler
from storage.records import SessionId, TaskRecord, UserId
from storage.schedule_records import ScheduleId, ScheduleRecord, ScheduleRun
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.support.directory_bench import KeptStore
from tests.support.doubles import FakeReach
from tests.support.facts import eventually
from tests.support.flaky_store import FlakyStore
from tests.support.manual_clock import ManualClock
from tests.support.schedules import SECOND, a_schedule


class Bench:
    """A scheduler whose `look` is what its loop does, and schedules that begin ten seconds from now."""

    def __init__(self, store: AsyncStorageBackend, **queue: Any) -> None:
        self.clock = ManualClock()
        self.plain = store
        self.store = FlakyStore(KeptStore(store))  # type: ignore[arg-type]
        self.reach = FakeReach()
        self.reach.answers["directory"] = self._directory
        self.settings = ActorSettings(
            agent_queue=AgentQueueSettings(**queue), schedules=SchedulesSettings(retry_s=5.0, poll_interval_s=30.0)
        )
        handle = self.handle = DirectoryHandle(self.reach.actor("directory"))
        self.scheduler = create_scheduler(self.settings, self.store, self.clock, handle, self.reach)  # type: ignore[arg-type]
        self.start_us = self.clock.now_us()

    def _directory(self, command: AnyCommand) -> Reply:
        return Location(actor="owner") if isinstance(command, Locate) else Done()

    def janitor(self) -> Janitor:
        parts: Any = (self.settings, self.store, self.clock, self.handle, self.reach)
        return Janitor(*parts, create_children(*parts), self.scheduler)

    async def look(self) -> None:
        await self.scheduler.fire_once()

    async def add(self, schedule_id: str = "sch_1", **fields: Any) -> ScheduleRecord:
        now_us = self.clock.now_us()
        values = {"anchor_us": now_us, "next_run_us": now_us + 10 * SECOND, **fields}
        schedule = await self.plain.create_schedule(a_schedule(schedule_id, **values), most=10_000)
        assert schedule is not None
        return schedule

    async def get(self, schedule_id: str = "sch_1") -> ScheduleRecord:
        schedule = await self.plain.get_schedule(ScheduleId(schedule_id))
        assert schedule is not None
        return schedule

    async def tasks(self, user_id: str | None = None) -> list[TaskRecord]:
        """Oldest first."""
        user = UserId(user_id) if user_id else None
        found = await self.plain.list_tasks(user, status=None, session_id=None, before=None, limit=1000)
        return sorted(found, key=lambda task: task.turn_id)

    async def due(self) -> list[float]:
        """The due times that have tasks, in seconds since the start."""
        keys = [str(task.idempotency_key) for task in await self.tasks()]
        return [(int(key.rpartition(":")[2]) - self.start_us) / SECOND for key in keys]

    async def history(self, schedule_id: str = "sch_1") -> list[ScheduleRun]:
        return (await self.plain.list_runs(ScheduleId(schedule_id), before_us=None, limit=1000))[::-1]


@pytest.fixture
def bench(store: AsyncStorageBackend) -> Bench:
    return Bench(store)


async def test_it_fires_when_the_time_has_come_and_not_before(bench: Bench) -> None:
    await bench.add()
    bench.clock.advance(9.9)
    await bench.look()
    assert await bench.due() == []
    assert bench.scheduler.look_in_s == pytest.approx(0.1)
    bench.clock.advance(0.3)
    await bench.look()
    assert await bench.due() == [10]
    assert bench.scheduler.look_in_s == pytest.approx(9.8)
    counts = bench.scheduler.counts
    assert (counts.fired, counts.lag_seconds) == (1, pytest.approx(0.2))
    bench.clock.advance(9.8)
    await bench.look()
    assert await bench.due() == [10, 20]


async def test_a_run_is_what_the_schedule_says(bench: Bench) -> None:
    request = {
        "question": "what is new?", "agent_id": "reader", "model_name": "m", "tool_names": ["sleep"],
        "attachments": [{"content": "x"}], "config_overrides": {"temperature": 0.5}, "priority": 7, "max_attempts": 2,
    }  # fmt: skip
    await bench.add(request=msgspec.json.encode(request), name="the news", user_id=UserId("ada"))
    bench.clock.advance(10)
    await bench.look()
    (task,) = await bench.tasks("ada")
    command = request_of(task)
    assert (task.status, task.origin, task.priority, task.max_attempts, command.content) == (
        *("queued", "task", 7, 2, "what is new?"),
    )
    assert (command.agent_id, command.model_name, command.tool_names) == ("reader", "m", ("sleep",))
    assert (command.attachments, command.config_overrides) == (({"content": "x"},), {"temperature": 0.5})
    session = await bench.plain.get_session(task.session_id)
    assert session is not None
    assert (session.title, session.agent_id, session.user_id) == ("the news", "reader", "ada")


async def test_pools_are_woken_once_and_owners_of_their_own(bench: Bench) -> None:
    await make.fence(bench.plain)
    for name in ("a", "b", "c"):
        await bench.add(name)
    await bench.add("owned", user_id=make.USER, session_id=make.SESSION)
    bench.clock.advance(10)
    await bench.look()
    await eventually(lambda: bench.reach.heard("owner", PickUp), "the owner is told")
    await eventually(lambda: bench.reach.heard("directory", WakePools), "the pools are woken")
    assert len(bench.reach.heard("owner", PickUp)) == len(bench.reach.heard("directory", WakePools)) == 1
    await bench.scheduler.stop()


async def test_an_owner_that_was_not_told_is_reminded_by_the_next_scheduler(
    bench: Bench, store: AsyncStorageBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make.fence(bench.plain)
    await bench.add("owned", user_id=make.USER, session_id=make.SESSION)
    await bench.add("pooled", user_id=make.USER)
    bench.clock.advance(10)
    with monkeypatch.context() as patched:
        patched.setattr(bench.scheduler._intake, "announce", lambda outcomes: None)  # it dies before it can
        await bench.look()
    after = Bench(store)
    after.clock.advance(11)
    for _ in range(2):
        await after.look()
    await eventually(lambda: after.reach.heard("owner", PickUp), "the owner is told")
    assert len(after.reach.heard("owner", PickUp)) == 1
    assert not after.reach.heard("directory", WakePools), "pools look by themselves"
    await after.scheduler.stop()


async def test_an_at_is_done_after_its_time(bench: Bench) -> None:
    due_us = bench.start_us + 10 * SECOND
    await bench.add(kind="at", expression="2026-01-01T00:00:10+00:00", next_run_us=due_us)
    bench.clock.advance(10)
    for _ in range(2):
        await bench.look()
    assert await bench.due() == [10]
    assert (await bench.get()).next_run_us is None
    assert bench.scheduler.look_in_s is None


@pytest.mark.parametrize(
    ("missed", "due", "outcomes"),
    [
        ("all", [10, 20, 30, 40, 50], ["fired"] * 5),
        ("latest", [50], ["skipped", "fired"]),
        ("skip", [], ["skipped"]),
    ],
)
async def test_after_an_outage(bench: Bench, missed: str, due: list[float], outcomes: list[str]) -> None:
    await bench.add(missed=missed, grace_us=SECOND)
    bench.clock.advance(55)
    await bench.look()
    assert await bench.due() == due
    assert [run.outcome for run in await bench.history()] == outcomes
    assert (await bench.get()).next_run_us == bench.start_us + 60 * SECOND
    missed_ones = sum(run.missed for run in await bench.history())
    assert (bench.scheduler.counts.missed, len(due) + missed_ones) == (missed_ones, 5)


async def test_two_schedulers_take_turns(bench: Bench, store: AsyncStorageBackend) -> None:
    other = Bench(store)
    await bench.add(missed="all")
    for _ in range(20):
        for one in (bench, other):
            one.clock.advance(5)
            await one.look()
    assert await bench.due() == [10.0 * n for n in range(1, 11)]
    assert bench.scheduler.counts.fired + other.scheduler.counts.fired == 10


async def test_one_that_was_changed_meanwhile_is_left_to_the_next_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.add()
    bench.clock.advance(10)
    read = bench.plain.due_schedules

    async def read_before_the_change(*args: Any, **kwargs: Any) -> list[ScheduleRecord]:
        found = await read(*args, **kwargs)
        request = b'{"question":"echo new"}'
        await bench.plain.update_schedule(msgspec.structs.replace(found[0], request=request), set_next_run=False)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(bench.plain, "due_schedules", read_before_the_change)
        await bench.look()
    assert (await bench.due(), bench.scheduler.counts.lost) == ([], 1)
    await bench.look()
    (task,) = await bench.tasks()
    assert request_of(task).content == "echo new"


async def test_a_full_queue_keeps_the_time_due(store: AsyncStorageBackend) -> None:
    bench = Bench(store, max_queued_per_user=2)
    await bench.add(missed="all")
    await bench.add("other", user_id=UserId("bob"), next_run_us=bench.start_us + 45 * SECOND)
    bench.clock.advance(45)
    for _ in range(3):
        await bench.look()
    assert [run.outcome for run in await bench.history()] == ["fired", "fired", "refused"]
    assert bench.scheduler.look_in_s == 5.0
    assert bench.scheduler.counts.refused == 1, "noted once"
    (refused,) = [run for run in await bench.history() if run.outcome == "refused"]
    assert refused.error is not None
    assert msgspec.json.decode(refused.error)["code"] == "USER_QUOTA_EXCEEDED"
    assert len(await bench.tasks("bob")) == 1, "nobody waits for the one whose queue is full"
    owner = await make.owner(store)
    await store.claim_tasks(owner, limit=9, seq_block=64, now_us=bench.clock.now_us())
    await bench.look()
    assert [run.outcome for run in await bench.history()] == ["fired"] * 4
    assert (await bench.get()).next_run_us == bench.start_us + 50 * SECOND
    assert bench.scheduler.look_in_s == 5.0, "the next one is due in five seconds"


async def test_the_whole_queue_is_bounded_within_one_look(store: AsyncStorageBackend) -> None:
    bench = Bench(store, max_queued=3)
    for number in range(6):
        await bench.add(f"sch_{number}", user_id=UserId(f"user_{number}"))
    bench.clock.advance(10)
    await bench.look()
    assert len(await bench.tasks()) == 3
    assert bench.scheduler.counts.refused == 3


async def test_many_pages_with_refused_ones_at_their_head(
    store: AsyncStorageBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)
    bench = Bench(store, max_queued_per_user=1)
    for number in range(7):
        await bench.add(f"sch_{number}", user_id=UserId("full"), next_run_us=bench.start_us + number)
    await bench.add("sch_z", user_id=UserId("other"), next_run_us=bench.start_us + 9)
    bench.clock.advance(1)
    await bench.look()
    assert len(await bench.tasks("full")) == 1
    assert len(await bench.tasks("other")) == 1


async def test_one_that_cannot_be_run_does_not_stop_the_others(bench: Bench) -> None:
    await bench.add("broken", kind="cron", expression="* * * * *", zone="Europe/Nowhere")
    await bench.add("unreadable", request=b'{"ask":"?"}')
    await bench.add("well")
    bench.clock.advance(10)
    await bench.look()
    assert len(await bench.tasks()) == 1
    for name in ("broken", "unreadable"):
        (run,) = await bench.history(name)
        assert run.outcome == "refused"
    assert bench.scheduler.look_in_s == 5.0


async def test_without_its_session_it_is_paused(bench: Bench) -> None:
    await bench.add(session_id=SessionId("gone"))
    bench.clock.advance(10)
    await bench.look()
    schedule = await bench.get()
    assert (schedule.paused, schedule.pause_reason) == (True, "its session was deleted")
    assert bench.scheduler.counts.refused == 1


async def test_a_database_that_is_away_loses_nothing(bench: Bench) -> None:
    await bench.add(missed="all")
    bench.clock.advance(30)
    bench.store.fail("fire_schedule")
    with pytest.raises(StorageUnavailable):
        await bench.look()
    assert bench.scheduler.look_in_s == 5.0, "it does not wait for the loop's back-off"
    await bench.look()
    assert await bench.due() == [10, 20, 30]


async def test_what_becomes_due_during_a_look_is_for_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the database is, a look ends."""
    await bench.add(missed="all")
    fire = bench.plain.fire_schedule

    async def slow(*args: Any, **kwargs: Any) -> Any:
        bench.clock.advance(10)
        return await fire(*args, **kwargs)

    monkeypatch.setattr(bench.plain, "fire_schedule", slow)
    bench.clock.advance(10)
    await bench.look()
    assert await bench.due() == [10]
    assert bench.scheduler.look_in_s == 0


async def test_an_answer_that_was_lost_fires_nothing_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.add(missed="all")
    bench.clock.advance(20)
    fire, lost = bench.plain.fire_schedule, []

    async def unheard(*args: Any, **kwargs: Any) -> Any:
        fired = await fire(*args, **kwargs)
        if not lost:
            lost.append(fired)
            raise StorageUnavailable("the answer was lost")
        return fired

    monkeypatch.setattr(bench.plain, "fire_schedule", unheard)
    with pytest.raises(StorageUnavailable):
        await bench.look()
    await bench.look()
    assert await bench.due() == [10, 20]


async def test_how_many_are_active_is_counted_now_and_then(bench: Bench) -> None:
    await bench.add()
    await bench.look()
    assert bench.scheduler.gauges()["schedules_active"] == 1
    await bench.add("sch_2")
    await bench.look()
    assert bench.scheduler.gauges()["schedules_active"] == 1
    bench.clock.advance(10)
    await bench.look()
    assert bench.scheduler.gauges()["schedules_active"] == 2


async def test_the_janitor_looks_again_when_one_was_changed_and_when_one_is_due(bench: Bench) -> None:
    janitor = bench.janitor()
    await janitor.start()
    try:
        await eventually(lambda: bench.store.calls.get("due_schedules") == 1, "the first look")
        await bench.add(next_run_us=bench.clock.now_us() + SECOND // 20)
        await tell(janitor.handle, ScheduleChanged())
        await eventually(lambda: bench.store.calls.get("due_schedules") == 2, "the second look")
        bench.clock.advance(1)
        await eventually(lambda: bench.scheduler.counts.fired == 1, "its timer")
    finally:
        await janitor.stop()


async def test_history_is_removed_by_age(bench: Bench) -> None:
    janitor = bench.janitor()
    await bench.add()
    bench.clock.advance(10)
    await bench.look()
    await janitor.retain_once()
    assert len(await bench.history()) == 1
    bench.clock.advance(bench.settings.schedules.history_retention_s + 1)
    await janitor.retain_once()
    assert await bench.history() == []
