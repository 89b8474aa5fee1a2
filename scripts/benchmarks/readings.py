"""What one turn's reader saw, kept raw while measuring, and the check afterwards that it is whole and in order."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec

from scripts.benchmarks.plan import Script

_STAMP = re.compile(r"@(\d+) ")
_JUMPS = frozenset({"gap", "rewind"})


class EventBody(msgspec.Struct):
    """The envelope of an event."""

    session_id: str = ""
    turn_id: str = ""
    first_id: int | None = None
    data: dict[str, Any] = {}


class SeenEvent(msgspec.Struct):
    """An event with the time at which its last byte was read."""

    read_ns: int
    kind: str
    seq: int
    body: EventBody


class Reading:
    """One turn as its client sees it; times are monotonic nanoseconds, 0 means not yet."""

    def __init__(self, request_id: str, script: Script, session_id: str | None = None) -> None:
        self.request_id = request_id
        self.script = script
        self.session_id = session_id
        self.turn_id = ""
        self.after = -1
        self.sent_ns = 0
        self.accepted_ns = 0
        self.ended_ns = 0
        self.cancel_sent_ns = 0
        self.cancel_answered_ns = 0
        self.cancel_status = ""
        self.raw: list[tuple[int, bytes]] = []
        self.error = ""
        self.done = asyncio.get_running_loop().create_future()

    def end(self, error: str = "") -> None:
        """Nothing more comes; waiters wake."""
        self.error = self.error or error
        if not self.done.done():
            self.done.set_result(None)


class Checked(msgspec.Struct):
    """A reading, understood: `problems` is empty when everything came, once, in order and unchanged."""

    problems: list[str]
    delays_ns: list[int]
    stamps_ns: list[int]
    status: str
    events: int
    first_event_ns: int
    first_delta_ns: int


def check(reading: Reading, events: list[SeenEvent]) -> Checked:
    """Look into a reading: order by id, contiguous or announced, text equal to the stored answer, stamps complete."""
    problems = [reading.error] if reading.error else []
    problems += _order(reading, events)
    deltas = _standing_deltas(events)
    moves = sum(event.kind == "rewind" for event in events)
    problems += [f"the session moved to another owner {moves} times (its leases were lost)"] if moves else []
    delays: list[int] = []
    stamps: list[int] = []
    for event in deltas:
        for found in _STAMP.findall(event.body.data.get("delta", "")):
            stamps.append(int(found))
            delays.append(event.read_ns - int(found))
    terminal = events[-1] if events and events[-1].kind == "turn_terminal" else None
    status = terminal.body.data.get("status", "") if terminal else ""
    problems += _text(reading, events, deltas, stamps, status)
    return Checked(
        problems=problems,
        delays_ns=delays,
        stamps_ns=stamps,
        status=status,
        events=len(events),
        first_event_ns=events[0].read_ns if events else 0,
        first_delta_ns=deltas[0].read_ns if deltas else 0,
    )


def _standing_deltas(events: list[SeenEvent]) -> list[SeenEvent]:
    """The deltas that a reader has in the end: a `rewind` takes back what came after the event that it names."""
    standing: list[SeenEvent] = []
    for event in events:
        if event.kind == "rewind":
            standing = [one for one in standing if one.seq <= event.body.data["to_event_id"]]
        elif event.kind == "llm_output_delta":
            standing.append(event)
    return standing


def _order(reading: Reading, events: list[SeenEvent]) -> list[str]:
    problems, last = [], reading.after
    for event in events:
        first = event.body.first_id if event.body.first_id is not None else event.seq
        if last >= 0 and first <= last and event.kind not in _JUMPS:
            problems.append(f"event {event.seq} ({event.kind}) came after {last}: twice or out of order")
        elif last >= 0 and first > last + 1 and event.kind not in _JUMPS:
            problems.append(f"{first - last - 1} events are missing before {event.seq} ({event.kind}), unannounced")
        if event.kind == "gap":
            problems.append(f"an announced gap at {event.seq}: {event.body.data}")
        last = max(last, event.seq)
    if not events or events[-1].kind != "turn_terminal":
        problems.append(f"the last of {len(events)} events is not turn_terminal")
    return problems


def _text(
    reading: Reading, events: list[SeenEvent], deltas: list[SeenEvent], stamps: list[int], status: str
) -> list[str]:
    if reading.cancel_sent_ns:
        return [] if status == "cancelled" else [f"a cancelled turn ended as {status!r}"]
    problems = [] if status == "succeeded" else [f"the turn ended as {status!r}"]
    if len(stamps) != reading.script.deltas:
        problems.append(f"{len(stamps)} deltas came of {reading.script.deltas}")
    if stamps != sorted(stamps):
        problems.append("deltas came in another order than upstream sent them")
    text = "".join(event.body.data.get("delta", "") for event in deltas)
    if "".join(f"@{stamp} " for stamp in stamps) != text:
        problems.append("the text is not what upstream sent")
    for kind, field in (("llm_output", "content"), ("final", "answer")):
        said = [event.body.data.get(field) for event in events if event.kind == kind]
        if said != [text]:
            problems.append(f"{kind}.{field} is not the text of the deltas")
    return problems
