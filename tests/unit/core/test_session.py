"""What a session decides, for every state and every busy policy."""

from __future__ import annotations

import pytest

from actors.messages import BusyPolicy
from actors.session import Decision, Enqueue, Numbers, Refuse, Session, Start
from storage.records import OpenedSession, TaskRecord, TurnId
from tests.conformance.store import make

MAX_QUEUED = 2
FULL = Refuse("session_queue_full", quota=True)
BUSY = Refuse("session_busy")
FIRST = Enqueue(1, "interrupting", interrupt=True)


def session(state: str, queued: int) -> Session:
    crashed = make.task("crashed") if state == "crashed" else None
    waiting = tuple(make.task(f"q{i}", "queued") for i in range(queued))
    record = make.session(epoch=3, message_count=7)
    opened = OpenedSession(session=record, first_seq=1, last_seq=0, running=crashed, queued=waiting)
    found = Session(opened, max_queued=MAX_QUEUED)
    if state == "running":
        found.start(make.task("running"))
    return found


@pytest.mark.parametrize(
    ("state", "queued", "busy", "decision"),
    [
        ("idle", 0, "enqueue", Start()),
        ("idle", 0, "reject", Start()),
        ("idle", 0, "interrupt", Start()),
        ("idle", 1, "enqueue", Enqueue(2, "session_busy")),
        ("idle", 1, "reject", BUSY),
        ("idle", 1, "interrupt", FIRST),
        ("idle", 2, "enqueue", FULL),
        ("idle", 2, "reject", BUSY),
        ("idle", 2, "interrupt", FULL),
        *((s, 0, "enqueue", Enqueue(1, "session_busy")) for s in ("running", "crashed")),
        *((s, 0, "reject", BUSY) for s in ("running", "crashed")),
        *((s, 0, "interrupt", FIRST) for s in ("running", "crashed")),
        *((s, 1, "enqueue", Enqueue(2, "session_busy")) for s in ("running", "crashed")),
        *((s, 1, "reject", BUSY) for s in ("running", "crashed")),
        *((s, 1, "interrupt", FIRST) for s in ("running", "crashed")),
        *((s, 2, "enqueue", FULL) for s in ("running", "crashed")),
        *((s, 2, "reject", BUSY) for s in ("running", "crashed")),
        *((s, 2, "interrupt", FULL) for s in ("running", "crashed")),
    ],
)
def test_a_submit_is_decided_by_state_and_policy(state: str, queued: int, busy: BusyPolicy, decision: Decision) -> None:
    found = session(state, queued)
    assert found.on_submit(busy) == decision
    assert len(found.queue) == queued


@pytest.mark.parametrize(
    ("state", "queued", "active"),
    [
        ("idle", 0, None),
        ("idle", 2, "q0"),
        ("running", 2, "running"),
        ("crashed", 2, "crashed"),
    ],
)
def test_the_active_turn_is_what_runs_or_runs_next(state: str, queued: int, active: str | None) -> None:
    found = session(state, queued)
    assert found.active_turn == active
    assert found.busy == (active is not None)


def test_a_session_is_opened_with_its_fence_and_its_place_in_the_transcript() -> None:
    found = session("idle", 0)
    assert (found.fence.epoch, found.next_position, found.permit) == (3, 7, "none")


def test_an_interrupting_turn_goes_ahead_of_the_others() -> None:
    found = session("running", 1)
    found.enqueue(make.task("urgent", "queued"), front=True)
    found.enqueue(make.task("later", "queued"), front=False)
    assert [task.turn_id for task in found.queue] == ["urgent", "q0", "later"]
    assert found.find_queued(TurnId("later")) is not None
    assert found.find_queued(TurnId("nobody")) is None
    assert found.find_queued(None) is None


def test_at_most_one_turn_runs() -> None:
    found = session("running", 0)
    with pytest.raises(RuntimeError, match="already runs"):
        found.start(make.task("second"))
    found.finished("succeeded")
    assert not found.busy
    found.finished("succeeded")
    assert found.start(make.task("second")).turn_id == "second"


def test_a_resumed_turn_is_no_crashed_turn_any_more() -> None:
    found = session("crashed", 0)
    task: TaskRecord | None = found.crashed
    assert task is not None
    running = found.start(task, resumed=True)
    assert (found.crashed, running.resumed, running.finishing, running.status) == (None, True, False, "running")


def test_numbers_are_used_in_order_and_only_when_reserved() -> None:
    numbers = Numbers(first=5, reserved=6, block=64)
    assert (numbers.left, numbers.last) == (2, 4)
    assert [numbers.take(), numbers.take()] == [5, 6]
    assert (numbers.left, numbers.last) == (0, 6)
    with pytest.raises(RuntimeError, match="before it was reserved"):
        numbers.take()
