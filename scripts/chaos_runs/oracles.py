"""The verdict: what was acknowledged, what the database says and what the world saw, held against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import asyncpg
import msgspec

from actors.turn import UNKNOWN_OUTCOME
from scripts.benchmarks.numbers import Numbers, percentiles
from scripts.chaos_runs import submit, world
from scripts.chaos_runs.arena import Arena
from scripts.chaos_runs.faults import Hit
from scripts.chaos_runs.submit import Acknowledged
from scripts.chaos_runs.world import Call

_TASKS = """
SELECT t.turn_id, t.session_id, t.status, t.attempt, t.crashes, t.request::jsonb ->> 'content' AS content, s.epoch,
    s.message_count
FROM tasks t LEFT JOIN sessions s ON s.session_id = t.session_id
"""
_EVENTS = """
SELECT turn_id, count(*) FILTER (WHERE kind = 'turn_terminal') AS ends,
    count(*) FILTER (WHERE kind = 'final') AS finals,
    count(*) FILTER (WHERE kind = 'tool_result') AS results,
    max(seq) FILTER (WHERE kind <> 'turn_terminal') < min(seq) FILTER (WHERE kind = 'turn_terminal') AS ends_last,
    min(data::jsonb ->> 'status') FILTER (WHERE kind = 'turn_terminal') AS status
FROM events GROUP BY turn_id
"""
_OVERLAPS = """
SELECT count(*)
FROM (SELECT first_seq, seq, lag(seq) OVER (PARTITION BY session_id ORDER BY seq) AS before FROM events) e
WHERE first_seq > seq OR first_seq <= before
"""
_MESSAGES = """
SELECT turn_id, count(*) FILTER (WHERE role = 'user') AS questions,
    count(*) FILTER (WHERE role = 'assistant' AND NOT body::jsonb ? 'tool_calls') AS answers,
    count(*) FILTER (WHERE role = 'tool') AS results, count(*) AS messages,
    count(*) FILTER (WHERE role = 'tool' AND position($1 IN body) > 0) AS unknown,
    count(*) FILTER (WHERE role = 'tool' AND body::jsonb ->> 'content' LIKE '{"error"%') AS failed
FROM messages GROUP BY turn_id
"""
_ENDS = """
SELECT turn_id, kind, epoch, attempt, accepted, epoch_then, count(*) AS n FROM chaos_ends GROUP BY 1, 2, 3, 4, 5, 6
"""
_TAKEOVERS = """
SELECT h.kind, min(e.created_us) - h.at_us AS waited_us
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS h (kind, session_id, at_us)
JOIN events e ON e.session_id = h.session_id AND e.kind = 'rewind' AND e.created_us > h.at_us
GROUP BY h.kind, h.session_id, h.at_us
"""
_EVIDENCE = {
    "task": "SELECT * FROM tasks WHERE turn_id = $1",
    "session": "SELECT * FROM sessions WHERE session_id = (SELECT session_id FROM tasks WHERE turn_id = $1)",
    "messages": "SELECT * FROM messages WHERE turn_id = $1 ORDER BY position",
    "events": "SELECT * FROM events WHERE session_id = (SELECT session_id FROM tasks WHERE turn_id = $1) ORDER BY seq",
    "ends": "SELECT * FROM chaos_ends WHERE turn_id = $1",
}
_MAX_SHOWN = 3
_MAX_KEPT = 10


class Verdict(msgspec.Struct):
    """Numbers for the table, each promise that was broken, and the tasks (or labels) that show it."""

    numbers: Numbers
    problems: list[str]
    suspects: list[Any] = []

    def expect_none(self, name: str, what: str, found: Sequence[Any]) -> None:
        """`found` are counter-examples: their number is shown under `name`."""
        self.numbers[name] = len(found)
        if found:
            self.problems.append(f"{what}: {len(found)}, such as {', '.join(map(str, found[:_MAX_SHOWN]))}")
            self.suspects += found[:_MAX_KEPT]


class Facts(msgspec.Struct):
    """All that is known after a run, by task id."""

    acknowledged: list[Acknowledged]
    calls: dict[tuple[str, int], list[Call]]
    tasks: dict[str, Any]
    events: dict[str, Any]
    messages: dict[str, Any]
    ends: list[Any]
    broken_numbers: int
    takeovers: list[Any]


async def gather(arena: Arena, hits: list[Hit]) -> Facts:
    """Read the ledgers and the database."""
    connection = await arena.connect()
    try:
        unknown = msgspec.json.encode(UNKNOWN_OUTCOME).decode().strip('"')
        return Facts(
            acknowledged=submit.read_ledger(arena.acknowledged),
            calls=world.read_ledger(arena.effects),
            tasks=await _by_turn(connection, _TASKS),
            events=await _by_turn(connection, _EVENTS),
            messages=await _by_turn(connection, _MESSAGES, unknown),
            ends=await connection.fetch(_ENDS),
            broken_numbers=await connection.fetchval(_OVERLAPS),
            takeovers=await connection.fetch(
                _TAKEOVERS, [h.kind for h in hits], [h.session_id for h in hits], [h.at_us for h in hits]
            ),
        )
    finally:
        await connection.close()


async def look_closer(arena: Arena, suspects: list[Any]) -> dict[str, Any]:
    """All that the database has of some of the tasks that show a broken promise, by task id."""
    connection = await arena.connect()
    try:
        found: dict[str, Any] = {}
        for turn_id in dict.fromkeys(one for one in suspects if isinstance(one, str)):
            rows = {name: await connection.fetch(query, turn_id) for name, query in _EVIDENCE.items()}
            found[turn_id] = {name: [dict(row) for row in of_name] for name, of_name in rows.items()}
        return found
    finally:
        await connection.close()


async def _by_turn(connection: asyncpg.Connection, query: str, *args: Any) -> dict[str, Any]:
    return {row["turn_id"]: row for row in await connection.fetch(query, *args)}


def judge(facts: Facts, arena: Arena, max_crashes: int) -> Verdict:
    """Hold everything against everything."""
    verdict = Verdict({"tasks": arena.options.tasks}, [], [])
    _nothing_is_lost(verdict, facts, arena, max_crashes)
    _completed_once(verdict, facts)
    _the_record_is_whole(verdict, facts)
    _effects(verdict, facts)
    attempts = sum(task["attempt"] for task in facts.tasks.values())
    verdict.numbers |= {"executions": attempts, "executions_per_task": attempts / max(1, len(facts.tasks))}
    verdict.numbers["tasks_whose_owner_died"] = sum(task["crashes"] > 0 for task in facts.tasks.values())
    waits = [one["waited_us"] * 1000 for one in facts.takeovers]
    verdict.numbers |= {"takeovers": len(waits), **percentiles("takeover", waits, (50, 99))}
    for kind in sorted({one["kind"] for one in facts.takeovers}):
        of_kind = [one["waited_us"] * 1000 for one in facts.takeovers if one["kind"] == kind]
        verdict.numbers |= percentiles(f"takeover_after_{kind}", of_kind, (50, 99))
    return verdict


def _nothing_is_lost(verdict: Verdict, facts: Facts, arena: Arena, max_crashes: int) -> None:
    """O1: what was acknowledged is there as it was sent, and has ended well, or has used its crashes up."""
    tasks, ledger = facts.tasks, facts.acknowledged
    verdict.numbers["acknowledged"] = len(ledger)
    verdict.expect_none("lost", "acknowledged and not there", [a.task_id for a in ledger if a.task_id not in tasks])
    sent = {a.task_id: submit.question(arena.world_url, a.label) for a in ledger}
    altered = [i for i, content in sent.items() if i in tasks and tasks[i]["content"] != content]
    verdict.expect_none("altered", "another task than was acknowledged", altered)
    verdict.expect_none("unasked", "tasks that nobody was told of", [i for i in tasks if i not in sent])
    labels = Counter(a.label for a in ledger)
    twice = [label for label in range(arena.options.tasks) if labels[label] != 1]
    verdict.expect_none("acknowledged_not_once", "requests that were not acknowledged once", twice)
    states = Counter(task["status"] for task in tasks.values())
    for state in ("succeeded", "dead", "failed", "cancelled", "interrupted"):
        verdict.numbers[state] = states[state]
    open_ = [i for i, task in tasks.items() if task["status"] in ("queued", "running")]
    verdict.expect_none("unfinished", "never came to an end", open_)
    wrong = [i for i, task in tasks.items() if task["status"] in ("failed", "cancelled", "interrupted")]
    wrong += [i for i, task in tasks.items() if task["status"] == "dead" and task["crashes"] <= max_crashes]
    verdict.expect_none("ended_wrongly", "ended in a state that nothing here leads to", wrong)


def _completed_once(verdict: Verdict, facts: Facts) -> None:
    """One accepted end for each task, and no write of a former owner; whatever else came was refused."""
    accepted: dict[str, list[tuple[int, int]]] = {}
    for one in facts.ends:
        if one["kind"] == "end" and one["accepted"]:
            accepted.setdefault(one["turn_id"], []).extend([(one["epoch"], one["attempt"])] * one["n"])
    ended = [i for i, task in facts.tasks.items() if task["status"] not in ("queued", "running")]
    more = {i for i, ends in accepted.items() if len(ends) > 1}
    more |= {i for i, events in facts.events.items() if events["ends"] > 1 or events["finals"] > 1}
    more |= {i for i, messages in facts.messages.items() if messages["answers"] > 1}
    verdict.expect_none("duplicates_accepted", "completed more than once", sorted(more))
    without = [i for i in ended if i not in accepted or i not in facts.events or not facts.events[i]["ends"]]
    verdict.expect_none("ends_missing", "ended without an end on record", without)
    epochs = {i: task["epoch"] for i, task in facts.tasks.items()}
    late = {one["turn_id"] for one in facts.ends if one["accepted"] and one["epoch"] < one["epoch_then"]}
    verdict.expect_none("fence_breaches", "written by a former owner", sorted(late))
    for kind, name in (("end", "stale_completions_refused"), ("round", "stale_rounds_refused")):
        refused = [one for one in facts.ends if one["kind"] == kind and not one["accepted"]]
        stale = [one for one in refused if one["epoch"] < epochs.get(one["turn_id"], 0)]
        verdict.numbers[name] = sum(one["n"] for one in stale)
        verdict.numbers[f"repeated_{kind}s_recognised"] = sum(one["n"] for one in refused) - verdict.numbers[name]


def _the_record_is_whole(verdict: Verdict, facts: Facts) -> None:
    """Each session holds one question, one answer, a result for each call, and numbers that only grow."""
    wrong = []
    for turn_id, task in facts.tasks.items():
        if task["status"] != "succeeded":
            continue
        said, events = facts.messages.get(turn_id), facts.events.get(turn_id)
        whole = said is not None and (said["questions"], said["answers"], said["results"]) == (1, 1, 1)
        whole = whole and said["messages"] == task["message_count"]
        whole = whole and events is not None and (events["finals"], events["results"]) == (1, 1)
        if not (whole and events["ends_last"] and events["status"] == task["status"]):
            wrong.append(turn_id)
    verdict.expect_none("records_broken", "sessions whose transcript or events are not whole", wrong)
    verdict.numbers["numbers_broken"] = facts.broken_numbers
    if facts.broken_numbers:
        verdict.problems.append(f"event numbers that do not grow: {facts.broken_numbers}")


def _effects(verdict: Verdict, facts: Facts) -> None:
    """O2: what must not be repeated was not, and no task claims an effect that the world has not seen."""
    label_of = {a.task_id: a.label for a in facts.acknowledged}
    for tool in ("safe", "once"):
        calls = [called for (name, _), called in facts.calls.items() if name == tool]
        verdict.numbers[f"effects_{tool}"] = sum(map(len, calls))
        verdict.numbers[f"effects_{tool}_repeated"] = sum(len(called) > 1 for called in calls)
        verdict.numbers[f"overlapping_{tool}"] = sum(map(_overlapping, calls))
    repeated = [label for (tool, label), called in facts.calls.items() if tool == "once" and len(called) > 1]
    verdict.expect_none("effects_once_repeated", "effects that must not be repeated, and were", repeated)
    keyless = [call.call for called in facts.calls.values() for call in called if call.tool == "once" and not call.key]
    verdict.expect_none("effects_without_key", "calls without their key", keyless)
    unknown, failed, claimed = 0, [], []
    for turn_id, said in facts.messages.items():
        label = label_of.get(turn_id, -1)
        unknown += said["unknown"]
        if said["failed"] > said["unknown"]:
            failed.append(turn_id)
        elif not said["failed"] and said["results"] and not facts.calls.get((submit.tool_of(label), label)):
            claimed.append(turn_id)
    verdict.numbers["outcomes_unknown"] = unknown
    verdict.expect_none("tools_failed", "tool calls that failed", failed)
    verdict.expect_none("effects_unseen", "results of effects that the world has not seen", claimed)


def _overlapping(calls: list[Call]) -> int:
    """Pairs of neighbours that were under way at the same time, as the world saw it."""
    return sum(later.began_s < (earlier.ended_s or float("inf")) for earlier, later in pairwise(calls))
