"""What is done about due times that have gone by."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import missed_runs
from actors.missed_runs import Decision, decide
from storage.schedule_records import MissedPolicy, ScheduleRun
from tests.support.schedules import SECOND, a_schedule

TEN = 10 * SECOND


def every_ten(missed: MissedPolicy, **fields: Any) -> Any:
    return a_schedule(kind="every", expression="10", anchor_us=0, missed=missed, next_run_us=TEN, **fields)


def skipped(first: int, last: int) -> ScheduleRun:
    return ScheduleRun(
        schedule_id=every_ten("all").schedule_id,
        due_us=first * TEN,
        fired_us=0,
        outcome="skipped",
        missed=last - first + 1,
        until_us=last * TEN,
    )


def decided(schedule: Any, now_us: int) -> tuple[int | None, int | None, ScheduleRun | None] | None:
    """Due times as multiples of ten seconds."""
    decision = decide(schedule, now_us)
    if decision is None:
        return None
    run = decision.skipped
    if run is not None:
        assert run.fired_us == now_us
        run = msgspec.structs.replace(run, fired_us=0)
    due = None if decision.due_us is None else decision.due_us // TEN
    return due, None if decision.next_run_us is None else decision.next_run_us // TEN, run


@pytest.mark.parametrize("missed", ["skip", "latest", "all"])
def test_on_time(missed: MissedPolicy) -> None:
    assert decide(every_ten(missed), TEN - 1) is None
    assert decided(every_ten(missed), TEN) == (1, 2, None)
    assert decided(every_ten(missed), 2 * TEN - 1) == (1, 2, None)


def test_nothing_is_due_without_a_next_time() -> None:
    assert decide(a_schedule(next_run_us=None, paused=True), 10**18) is None


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", (None, 6, skipped(1, 5))),
        ("latest", (5, 6, skipped(1, 4))),
        ("all", (1, 2, None)),
    ],
)
def test_five_have_gone_by(missed: MissedPolicy, expected: Any) -> None:
    assert decided(every_ten(missed, grace_us=SECOND), 5 * TEN + 2 * SECOND) == expected


def test_within_the_grace_skip_runs_the_newest() -> None:
    assert decided(every_ten("skip", grace_us=SECOND), 5 * TEN + SECOND) == (5, 6, skipped(1, 4))
    assert decided(every_ten("skip", grace_us=SECOND), 5 * TEN + SECOND + 1) == (None, 6, skipped(1, 5))


def test_all_makes_up_for_a_bounded_number() -> None:
    assert decided(every_ten("all"), 100 * TEN) == (1, 2, None)
    assert decided(every_ten("all"), 101 * TEN) == (2, 3, skipped(1, 1))
    assert decided(every_ten("all"), 100_000 * TEN)[0] == 99_901  # type: ignore[index]


def test_skipped_ones_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed_runs, "MOST_COUNTED", 3)
    for last in (2, 3, 4, 9):
        run = decide(every_ten("latest"), last * TEN).skipped  # type: ignore[union-attr]
        assert run is not None
        assert run.missed == min(3, last - 1)
        assert run.until_us == (last - 1) * TEN


@pytest.mark.parametrize(
    ("missed", "expected"), [("skip", (None, None)), ("latest", (TEN, None)), ("all", (TEN, None))]
)
def test_one_time_that_has_gone_by(missed: MissedPolicy, expected: Any) -> None:
    schedule = a_schedule(
        kind="at", expression="1970-01-01T00:00:10+00:00", missed=missed, next_run_us=TEN, grace_us=SECOND
    )
    decision = decide(schedule, 7 * TEN)
    assert decision is not None
    assert (decision.due_us, decision.next_run_us) == expected


def test_a_due_time_that_the_rules_do_not_name_any_more_is_still_due() -> None:
    """The zone's rules were changed after it was computed."""
    schedule = a_schedule(kind="cron", expression="0 9 * * *", missed="all", next_run_us=123 * SECOND)
    decision = decide(schedule, 124 * SECOND)
    assert decision == Decision(due_us=123 * SECOND, next_run_us=9 * 3600 * SECOND)


@given(
    missed=st.sampled_from(["skip", "latest", "all"]),
    grace=st.integers(0, 30),
    steps=st.lists(st.integers(1, 200), min_size=1, max_size=30),
)
def test_whenever_one_looks_each_due_time_is_run_or_skipped_once(
    missed: MissedPolicy, grace: int, steps: list[int]
) -> None:
    schedule = every_ten(missed, grace_us=grace * SECOND)
    now, ran, gone = 0, [], 0
    for step in steps:
        now += step * SECOND
        while (decision := decide(schedule, now)) is not None:
            if decision.skipped is not None:
                gone += decision.skipped.missed
            if decision.due_us is not None:
                ran.append(decision.due_us)
            schedule = msgspec.structs.replace(schedule, next_run_us=decision.next_run_us)
    assert ran == sorted(set(ran))
    assert len(ran) + gone == now // TEN
    if missed == "all":
        assert gone == 0
    elif missed == "latest":
        assert len(ran) == len({due // TEN for due in ran}) <= len(steps)
