"""Schedules: made, changed, fired once however many try, and their history."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from storage.errors import Conflict
from storage.records import Fence, TurnId, UserId
from storage.schedule_records import Fired, Firing, ScheduleId, ScheduleRecord, ScheduleRun
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.support.schedules import SECOND, USER, a_firing, a_run, a_schedule

MOST = 100
NOW = 25 * SECOND


async def stored(store: AsyncStorageBackend, schedule_id: str = "sch_1", **fields: Any) -> ScheduleRecord:
    schedule = await store.create_schedule(a_schedule(schedule_id, **fields), most=MOST)
    assert schedule is not None
    return schedule


async def history(store: AsyncStorageBackend, schedule_id: str = "sch_1") -> list[ScheduleRun]:
    return await store.list_runs(ScheduleId(schedule_id), before_us=None, limit=100)


async def queued(store: AsyncStorageBackend, user_id: str = USER) -> list[str]:
    return [
        t.turn_id for t in await store.list_tasks(UserId(user_id), status=None, session_id=None, before=None, limit=99)
    ]


async def test_what_is_made_can_be_read(store: AsyncStorageBackend) -> None:
    schedule = a_schedule(name="nightly\x00", session_id="s1", paused=True, next_run_us=None, pause_reason="why")
    made = await store.create_schedule(schedule, most=MOST)
    assert made == schedule
    assert await store.get_schedule(schedule.schedule_id) == msgspec.structs.replace(schedule, name="nightly\ufffd")
    assert await store.get_schedule(ScheduleId("none")) is None


async def test_making_it_again_gives_the_first(store: AsyncStorageBackend) -> None:
    first = await stored(store, name="first")
    assert await store.create_schedule(a_schedule(name="second"), most=1) == first
    with pytest.raises(Conflict):
        await store.create_schedule(a_schedule(user_id=UserId("u2")), most=MOST)


async def test_a_user_has_a_bounded_number(store: AsyncStorageBackend) -> None:
    for name in ("a", "b"):
        assert await store.create_schedule(a_schedule(name), most=2) is not None
    assert await store.create_schedule(a_schedule("c"), most=2) is None
    assert await store.create_schedule(a_schedule("c", user_id=UserId("u2")), most=2) is not None


async def test_pages_newest_first(store: AsyncStorageBackend) -> None:
    for number in range(5):
        await stored(store, f"sch_{number}", created_us=number // 2, user_id=UserId("ada" if number < 4 else "bob"))
    seen: list[str] = []
    before = None
    while page := await store.list_schedules(UserId("ada"), before=before, limit=2):
        seen += [schedule.schedule_id for schedule in page]
        before = (page[-1].created_us, page[-1].schedule_id)
    assert seen == ["sch_3", "sch_2", "sch_1", "sch_0"]
    assert len(await store.list_schedules(None, before=None, limit=10)) == 5


async def test_a_change_counts_only_if_nobody_was_faster(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    renamed = await store.update_schedule(
        msgspec.structs.replace(schedule, name="new", next_run_us=1), set_next_run=False
    )
    assert renamed is not None
    assert (renamed.name, renamed.revision, renamed.next_run_us) == ("new", 1, schedule.next_run_us)
    assert await store.update_schedule(msgspec.structs.replace(schedule, name="late"), set_next_run=False) is None
    moved = await store.update_schedule(msgspec.structs.replace(renamed, next_run_us=77), set_next_run=True)
    assert moved is not None
    assert moved.next_run_us == 77
    assert await store.update_schedule(a_schedule("none"), set_next_run=True) is None


async def test_what_is_due_the_longest_first(store: AsyncStorageBackend) -> None:
    for name, due in (("a", 30), ("b", 10), ("c", 10), ("later", 90)):
        await stored(store, name, next_run_us=due)
    await stored(store, "paused", next_run_us=5, paused=True)
    await stored(store, "done", next_run_us=None)
    first = await store.due_schedules(30, after=None, limit=2)
    assert [s.schedule_id for s in first] == ["b", "c"]
    rest = await store.due_schedules(30, after=(10, "c"), limit=2)
    assert [s.schedule_id for s in rest] == ["a"]
    assert await store.next_schedule_due(30) == 90
    assert await store.next_schedule_due(90) is None
    assert await store.count_active_schedules() == 4


async def test_firing_advances_queues_and_remembers(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    fired = await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    assert fired.outcome == "fired"
    assert fired.enqueued is not None
    assert fired.enqueued.owner_id is None
    after = await store.get_schedule(schedule.schedule_id)
    assert after is not None
    assert (after.next_run_us, after.last_run_us, after.runs, after.revision) == (20 * SECOND, 10 * SECOND, 1, 0)
    task = await store.get_task(TurnId("t1"))
    assert task is not None
    assert (task.status, task.idempotency_key) == ("queued", "schedule:sch_1:10000000")
    owner = await make.owner(store)
    assert [c.task.turn_id for c in await store.claim_tasks(owner, limit=9, seq_block=100, now_us=NOW)] == ["t1"]
    (run,) = await history(store)
    assert (run.outcome, run.due_us, run.fired_us, run.turn_id, run.session_id, run.status, run.manual) == (
        *("fired", 10 * SECOND, NOW, "t1", "ses_t1", "running", False),
    )


async def test_the_history_tells_of_a_run_that_waits(store: AsyncStorageBackend) -> None:
    await store.fire_schedule(a_firing(await stored(store), "t1"), now_us=NOW)
    (claimed,) = await store.claim_tasks(await make.owner(store), limit=1, seq_block=64, now_us=NOW)
    session = claimed.opened.session
    fence = Fence(session.session_id, session.epoch)
    waits = {"waits_for": "person:c1", "shown": b"{}", "until_us": NOW, "events": [], "now_us": NOW}
    assert await store.suspend_turn(fence, claimed.task, **waits)  # type: ignore[arg-type]
    assert [run.status for run in await history(store)] == ["waiting"]


async def test_a_due_time_is_fired_once(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    assert (await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)).outcome == "fired"
    assert await store.fire_schedule(a_firing(schedule, "t2"), now_us=NOW) == Fired(outcome="lost")
    assert await queued(store) == ["t1"]


@pytest.mark.parametrize("change", ["changed", "paused", "deleted"])
async def test_what_was_changed_meanwhile_is_not_fired(store: AsyncStorageBackend, change: str) -> None:
    schedule = await stored(store)
    if change == "deleted":
        assert await store.delete_schedule(schedule.schedule_id)
    else:
        await store.update_schedule(msgspec.structs.replace(schedule, paused=change == "paused"), set_next_run=False)
    assert (await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)).outcome == "lost"
    assert await queued(store) == []
    assert await history(store) == []


async def test_skipping_queues_nothing(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    skipped = ScheduleRun(
        schedule_id=schedule.schedule_id, due_us=10, fired_us=NOW, outcome="skipped", missed=3, until_us=30
    )
    fired = await store.fire_schedule(a_firing(schedule, "t1", item=None, due_us=None, skipped=skipped), now_us=NOW)
    assert fired.outcome == "skipped"
    assert await history(store) == [skipped]
    assert await queued(store) == []
    after = await store.get_schedule(schedule.schedule_id)
    assert after is not None
    assert (after.runs, after.last_run_us) == (0, None)


async def test_runs_go_to_the_named_session(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    schedule = await stored(store, session_id=make.SESSION, user_id=make.USER)
    fired = await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    assert fired.enqueued is not None
    assert fired.enqueued.owner_id == make.OWNER, "its live owner has to be told"
    await store.close_session(fence, last_seq=0, now_us=NOW)
    schedule = msgspec.structs.replace(schedule, next_run_us=20 * SECOND)
    fired = await store.fire_schedule(a_firing(schedule, "t2"), now_us=NOW)
    assert fired.enqueued is not None
    assert fired.enqueued.owner_id is None
    assert [t.turn_id for t in await store.queued_tasks(make.SESSION, limit=9)] == ["t1", "t2"]


async def test_runs_that_wait_for_an_owner(store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await store.fire_schedule(a_firing(await stored(store, "sch_1"), "t1"), now_us=NOW)
    await store.fire_schedule(a_firing(await stored(store, "sch_2", session_id=make.SESSION), "t2"), now_us=NOW)
    assert [(e.task.turn_id, e.owner_id) for e in await store.queued_runs(NOW) if e.task] == [("t2", make.OWNER)]
    assert await store.queued_runs(NOW + 1) == []
    await store.close_session(fence, last_seq=0, now_us=NOW)
    assert await store.queued_runs(NOW) == []


@pytest.mark.parametrize("whose", ["nobody's", "somebody else's"])
async def test_without_its_session_it_is_paused(store: AsyncStorageBackend, whose: str) -> None:
    if whose == "somebody else's":
        await store.create_session(make.session("gone", "somebody"))
    schedule = await stored(store, session_id="gone")
    fired = await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    assert fired == Fired(outcome="refused")
    after = await store.get_schedule(schedule.schedule_id)
    assert after is not None
    assert (after.paused, after.next_run_us, after.pause_reason) == (True, None, "its session was deleted")
    (run,) = await history(store)
    assert run.outcome == "refused"
    assert run.error is not None
    assert msgspec.json.decode(run.error)["code"] == "SESSION_NOT_FOUND"
    assert await queued(store) == []


async def test_a_refused_due_time_may_still_be_run(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    refused = ScheduleRun(
        schedule_id=schedule.schedule_id, due_us=10 * SECOND, fired_us=1, outcome="refused", error=b'{"code":"X"}'
    )
    await store.refuse_run(refused)
    await store.refuse_run(msgspec.structs.replace(refused, schedule_id=ScheduleId("none")))
    assert await history(store) == [refused]
    assert await history(store, "none") == []
    await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    await store.refuse_run(refused)
    (run,) = await history(store)
    assert (run.outcome, run.turn_id, run.error) == ("fired", "t1", None)


async def test_a_task_that_the_user_sent_with_the_same_key_is_the_run(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    await store.enqueue_tasks([a_run("mine", key=f"schedule:sch_1:{10 * SECOND}")], now_us=NOW)
    fired = await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    assert fired == Fired(outcome="fired")
    assert [run.turn_id for run in await history(store)] == ["mine"]
    assert await queued(store) == ["mine"]


async def test_run_by_hand_leaves_the_due_time(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    enqueued = await store.run_schedule(schedule.schedule_id, a_run("t1"), now_us=NOW)
    assert enqueued is not None
    assert enqueued.task is not None
    after = await store.get_schedule(schedule.schedule_id)
    assert after is not None
    assert (after.next_run_us, after.last_run_us, after.runs) == (schedule.next_run_us, NOW, 1)
    (run,) = await history(store)
    assert (run.manual, run.turn_id, run.due_us) == (True, "t1", NOW)
    again = await store.run_schedule(schedule.schedule_id, a_run("t1"), now_us=NOW + 1)
    assert again is not None
    assert len(await history(store)) == 1, "repeating it is harmless"
    assert await store.run_schedule(ScheduleId("none"), a_run("t2"), now_us=NOW) is None
    gone = await store.run_schedule(schedule.schedule_id, a_run("t3", "no-session"), now_us=NOW)
    assert gone is not None
    assert gone.task is None


async def test_deleting_removes_the_history_and_not_the_tasks(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    assert await store.delete_schedule(schedule.schedule_id)
    assert not await store.delete_schedule(schedule.schedule_id)
    assert await history(store) == []
    assert await queued(store) == ["t1"]


async def test_history_by_pages_and_its_retention(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    for number in range(1, 6):
        firing = a_firing(schedule, f"t{number}")
        assert (await store.fire_schedule(firing, now_us=number * SECOND)).outcome == "fired"
        schedule = msgspec.structs.replace(schedule, next_run_us=firing.next_run_us)
    assert [run.turn_id for run in await store.list_runs(schedule.schedule_id, before_us=None, limit=2)] == ["t5", "t4"]
    assert [r.turn_id for r in await store.list_runs(schedule.schedule_id, before_us=40 * SECOND, limit=2)] == [
        "t3",
        "t2",
    ]
    assert await store.delete_old_runs(4 * SECOND, limit=2) == 2
    assert await store.delete_old_runs(4 * SECOND, limit=2) == 1
    assert [run.turn_id for run in await history(store)] == ["t5", "t4"]


async def test_the_history_of_a_deleted_session_keeps_the_due_time(store: AsyncStorageBackend) -> None:
    schedule = await stored(store)
    await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    await store.delete_session(make.SessionId("ses_t1"))
    (run,) = await history(store)
    assert (run.turn_id, run.session_id, run.status) == ("t1", None, None)


# -- two at the same time --------------------------------------------------------------------------------------------

DUE = 40


async def race(stores: tuple[AsyncStorageBackend, AsyncStorageBackend]) -> tuple[int, list[Fired]]:
    """Two processes, each three tries at once, for each of some due times: the tasks, and what became of each try."""
    await stored(stores[0])
    outcomes: list[Fired] = []
    for number in range(1, DUE + 1):
        seen = msgspec.structs.replace(a_schedule(), next_run_us=number * 10 * SECOND)

        def firing(who: int, seen: ScheduleRecord = seen, number: int = number) -> Firing:
            # Without its key, so that only the comparison stands between a due time and two tasks.
            return a_firing(seen, f"t{number}-{who}", item=a_run(f"t{number}-{who}"))

        outcomes += await asyncio.gather(*(stores[who % 2].fire_schedule(firing(who), now_us=NOW) for who in range(6)))
    return len(await queued_all(stores[0])), outcomes


async def queued_all(store: AsyncStorageBackend) -> list[str]:
    return [t.turn_id for t in await store.list_tasks(None, status=None, session_id=None, before=None, limit=1000)]


async def test_of_two_schedulers_one_fires(two_stores: tuple[AsyncStorageBackend, AsyncStorageBackend]) -> None:
    tasks, outcomes = await race(two_stores)
    assert tasks == DUE
    assert [f.outcome for f in outcomes].count("fired") == DUE
    assert [f.outcome for f in outcomes].count("lost") == 5 * DUE
    assert len(await history(two_stores[0])) == DUE


async def test_without_the_comparison_it_would_be_fired_twice(
    two_stores: tuple[AsyncStorageBackend, AsyncStorageBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: what the test above would see if it could fail."""

    async def always(*_: Any) -> bool:
        return True

    monkeypatch.setattr("storage.schedules.advance", always)
    tasks, _ = await race(two_stores)
    assert tasks > DUE, "the control must be red"


async def test_a_crash_in_the_middle_leaves_the_time_due(
    store: AsyncStorageBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = await stored(store)

    class Died(Exception):
        pass

    async def dies(*_: Any) -> Any:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr("storage.schedules.enqueue_into", dies)
        with pytest.raises(Exception):  # noqa: B017 - as the driver passes it on
            await store.fire_schedule(a_firing(schedule, "t1"), now_us=NOW)
    assert await store.get_schedule(schedule.schedule_id) == schedule
    assert await history(store) == []
    assert (await store.fire_schedule(a_firing(schedule, "t2"), now_us=NOW)).outcome == "fired"
    assert await queued(store) == ["t2"]


async def test_deleting_while_it_fires_leaves_no_history(
    two_stores: tuple[AsyncStorageBackend, AsyncStorageBackend],
) -> None:
    for number in range(20):
        schedule = await stored(two_stores[0], f"sch_{number}")
        await asyncio.gather(
            two_stores[0].fire_schedule(a_firing(schedule, f"t{number}"), now_us=NOW),
            two_stores[1].delete_schedule(schedule.schedule_id),
        )
        assert await history(two_stores[0], schedule.schedule_id) == []
