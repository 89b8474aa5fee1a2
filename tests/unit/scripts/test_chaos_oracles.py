"""Each oracle of a chaos run can fail: a broken promise is found in facts that are otherwise in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.chaos_runs.arena import Arena
from scripts.chaos_runs.options import FAULTS, Options
from scripts.chaos_runs.oracles import Facts, judge
from scripts.chaos_runs.submit import Acknowledged, question, tool_of
from scripts.chaos_runs.world import Call

TASKS = 4
WORLD = "http://world"
MAX_CRASHES = 3


def arena(tmp_path: Path) -> Arena:
    options = Options(
        tasks=TASKS,
        seed=1,
        pools=1,
        slots=1,
        hold_s=0.1,
        lease_s=6.0,
        pace=1.0,
        deadline_s=1.0,
        faults=FAULTS,
        fenced=True,
    )
    made = Arena(tmp_path, options)
    made.world_url = WORLD
    return made


def call(label: int, number: int = 0, began_s: float = 1.0) -> Call:
    tool = tool_of(label)
    return Call(call=number, tool=tool, label=label, key="k" * (tool == "once"), began_s=began_s, ended_s=began_s + 1)


def end(label: int, *, epoch: int = 2, accepted: bool = True, kind: str = "end") -> dict[str, Any]:
    one = {"turn_id": f"t{label}", "kind": kind, "epoch": epoch, "attempt": epoch, "accepted": accepted, "n": 1}
    return {**one, "epoch_then": 2}


def in_order() -> Facts:
    """Every task was taken over once, and its former owner's completion was refused."""
    labels = range(TASKS)
    task = {"session_id": "s", "status": "succeeded", "attempt": 2, "crashes": 1, "epoch": 2, "message_count": 4}
    events = {"ends": 1, "finals": 1, "results": 1, "ends_last": True, "status": "succeeded"}
    messages = {"questions": 1, "answers": 1, "results": 1, "messages": 4, "unknown": 0, "failed": 0}
    return Facts(
        acknowledged=[Acknowledged(label=label, task_id=f"t{label}", session_id="s") for label in labels],
        calls={(tool_of(label), label): [call(label)] for label in labels},
        tasks={f"t{label}": {**task, "content": question(WORLD, label)} for label in labels},
        events={f"t{label}": dict(events) for label in labels},
        messages={f"t{label}": dict(messages) for label in labels},
        ends=[end(label, epoch=epoch, accepted=epoch == 2) for label in labels for epoch in (1, 2)],
        broken_numbers=0,
        takeovers=[{"kind": "kill", "waited_us": 200_000}],
    )


def test_facts_in_order_break_no_promise(tmp_path: Path) -> None:
    verdict = judge(in_order(), arena(tmp_path), MAX_CRASHES)
    assert verdict.problems == []
    wanted = {
        "stale_completions_refused": TASKS,
        "executions_per_task": 2.0,
        "takeover_p50_ms": 200.0,
        "succeeded": TASKS,
    }
    assert {name: verdict.numbers[name] for name in wanted} == wanted


def lost(facts: Facts) -> None:
    del facts.tasks["t1"]


def altered(facts: Facts) -> None:
    facts.tasks["t1"]["content"] = "another"


def recorded_twice(facts: Facts) -> None:
    facts.tasks["t9"] = {**facts.tasks["t1"]}


def never_acknowledged(facts: Facts) -> None:
    facts.acknowledged.pop()
    del facts.tasks["t3"]


def unfinished(facts: Facts) -> None:
    facts.tasks["t1"]["status"] = "running"


def dead_too_early(facts: Facts) -> None:
    facts.tasks["t1"] |= {"status": "dead", "crashes": MAX_CRASHES}


def two_accepted_ends(facts: Facts) -> None:
    facts.ends.append(end(1))


def two_terminal_events(facts: Facts) -> None:
    facts.events["t1"]["ends"] = 2


def two_answers(facts: Facts) -> None:
    facts.messages["t1"]["answers"] = 2


def ended_by_the_former_owner(facts: Facts) -> None:
    facts.ends = [end(label, epoch=1) for label in range(TASKS)]


def no_end_on_record(facts: Facts) -> None:
    facts.events["t1"]["ends"] = 0


def an_event_after_the_end(facts: Facts) -> None:
    facts.events["t1"]["ends_last"] = False


def a_result_twice(facts: Facts) -> None:
    facts.messages["t1"] |= {"results": 2, "messages": 5}


def overlapping_numbers(facts: Facts) -> None:
    facts.broken_numbers = 1


def repeated_effect(facts: Facts) -> None:
    facts.calls["once", 1].append(call(1, 9, began_s=9.0))


def effect_without_key(facts: Facts) -> None:
    facts.calls["once", 1][0].key = ""


def effect_that_never_was(facts: Facts) -> None:
    del facts.calls["safe", 2]


def failed_call(facts: Facts) -> None:
    facts.messages["t2"]["failed"] = 1


BROKEN = {
    lost: "lost",
    altered: "altered",
    recorded_twice: "unasked",
    never_acknowledged: "acknowledged_not_once",
    unfinished: "unfinished",
    dead_too_early: "ended_wrongly",
    two_accepted_ends: "duplicates_accepted",
    two_terminal_events: "duplicates_accepted",
    two_answers: "duplicates_accepted",
    ended_by_the_former_owner: "fence_breaches",
    no_end_on_record: "ends_missing",
    an_event_after_the_end: "records_broken",
    a_result_twice: "records_broken",
    overlapping_numbers: "numbers_broken",
    repeated_effect: "effects_once_repeated",
    effect_without_key: "effects_without_key",
    effect_that_never_was: "effects_unseen",
    failed_call: "tools_failed",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_a_broken_promise_is_found(breaks: Callable[[Facts], None], tmp_path: Path) -> None:
    facts = in_order()
    breaks(facts)
    verdict = judge(facts, arena(tmp_path), MAX_CRASHES)
    assert verdict.numbers[BROKEN[breaks]] > 0
    assert verdict.problems


def test_what_is_allowed_is_counted_and_breaks_nothing(tmp_path: Path) -> None:
    facts = in_order()
    facts.calls["safe", 2].append(call(2, 9, began_s=1.5))  # repeat-safe, and the first one was under way
    facts.calls["once", 1].clear()
    facts.messages["t1"] |= {"unknown": 1, "failed": 1}
    facts.tasks["t3"] |= {"status": "dead", "crashes": MAX_CRASHES + 1}
    verdict = judge(facts, arena(tmp_path), MAX_CRASHES)
    assert verdict.problems == []
    wanted = {"effects_safe_repeated": 1, "overlapping_safe": 1, "outcomes_unknown": 1, "dead": 1}
    assert {name: verdict.numbers[name] for name in wanted} == wanted
