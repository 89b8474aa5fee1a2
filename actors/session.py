"""A session's decisions, pure: what to do with a submit, a cancel, a permit. No clock, no database, no tasks.

            submit                     permit granted
idle ──────────────────► asking ─────────────────────────► running ──┐ finish: the next queued turn starts
  ▲                        │ refused: wait in the directory's queue  │ with the permit the session holds
  └────────────────────────┴─── release ◄── nothing left to run ◄────┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec

from actors.cancellation import CancellationToken
from actors.messages import BusyPolicy, Submit
from storage.records import Fence, OpenedSession, SessionId, SessionRecord, TaskRecord, TurnId, UserId

PermitState = Literal["none", "waiting", "held", "unsure"]
"""`unsure`: the directory may count this session as a holder; it is asked before a turn starts."""


class Start(msgspec.Struct, frozen=True):
    """Nothing runs: ask for a permit (if it is not held) and start."""


class Enqueue(msgspec.Struct, frozen=True):
    """Wait behind what runs; with `interrupt` ahead of the others, and what runs is cancelled."""

    position: int
    reason: str
    interrupt: bool = False


class Refuse(msgspec.Struct, frozen=True):
    """Say no; `quota` when the queue is full, otherwise the session is busy."""

    reason: str
    quota: bool = False


Decision = Start | Enqueue | Refuse


def new_session(command: Submit, now_us: int) -> SessionRecord:
    """The session that a first question makes."""
    return SessionRecord(
        session_id=command.session_id,
        user_id=command.user_id,
        title=command.title,
        agent_id=command.agent_id,
        created_us=now_us,
        updated_us=now_us,
    )


class RunningTurn:
    """The turn that runs now: its cancellation, and whether its end is being recorded."""

    def __init__(self, task: TaskRecord, *, resumed: bool) -> None:
        self.task = task
        self.resumed = resumed
        self.token = CancellationToken()
        self.finishing = False
        self.status: str = "running"

    @property
    def turn_id(self) -> TurnId:
        return self.task.turn_id


class Session:
    """The state of one open session under one epoch."""

    def __init__(self, opened: OpenedSession, *, max_queued: int) -> None:
        record = opened.session
        self.session_id: SessionId = record.session_id
        self.user_id: UserId = record.user_id
        self.agent_id = record.agent_id
        self.fence = Fence(record.session_id, record.epoch)
        self.next_position = record.message_count
        self.running: RunningTurn | None = None
        self.crashed: TaskRecord | None = opened.running
        self.queue: deque[TaskRecord] = deque(opened.queued)
        self.permit: PermitState = "none"
        self.turns = 0
        self._max_queued = max_queued

    @property
    def busy(self) -> bool:
        """Something runs, is to be taken up again, or waits."""
        return self.running is not None or self.crashed is not None or bool(self.queue)

    @property
    def active_turn(self) -> TurnId | None:
        """The turn that runs, or will run next."""
        if self.running is not None:
            return self.running.turn_id
        if self.crashed is not None:
            return self.crashed.turn_id
        return self.queue[0].turn_id if self.queue else None

    def on_submit(self, busy: BusyPolicy) -> Decision:
        """What to do with a new turn."""
        if not self.busy:
            return Start()
        if busy == "reject":
            return Refuse("session_busy")
        if len(self.queue) >= self._max_queued:
            return Refuse("session_queue_full", quota=True)
        if busy == "interrupt":
            return Enqueue(1, "interrupting", interrupt=True)
        return Enqueue(len(self.queue) + 1, "session_busy")

    def enqueue(self, task: TaskRecord, *, front: bool) -> None:
        if front:
            self.queue.appendleft(task)
        else:
            self.queue.append(task)

    def take_begun(self) -> TaskRecord | None:
        """Out of the queue: the turn at its head that has begun and waits, for its next attempt or for others."""
        return self.queue.popleft() if self.queue and self.queue[0].attempt > 0 else None

    def pick_up(self, tasks: Sequence[TaskRecord], now_us: int) -> None:
        """What the store says is queued: known ones as they are now, new ones that are in line at the end."""
        fresh = {task.turn_id: task for task in tasks}
        known = {task.turn_id for task in self.queue}
        new = [task for task in tasks if task.turn_id not in known and task.in_line(now_us)]
        self.queue = deque([*(fresh.get(task.turn_id, task) for task in self.queue), *new])

    def find_queued(self, turn_id: TurnId | None) -> TaskRecord | None:
        return next((task for task in self.queue if task.turn_id == turn_id), None)

    def start(self, task: TaskRecord, *, resumed: bool = False) -> RunningTurn:
        """The task is recorded as running; at most one may be."""
        if self.running is not None:
            raise RuntimeError(f"{self.session_id}: {self.running.turn_id} already runs")
        self.crashed = None
        self.turns += 1
        self.running = RunningTurn(task, resumed=resumed)
        return self.running

    def finished(self, status: str) -> None:
        if self.running is not None:
            self.running.status = status
            self.running = None


class Numbers:
    """The event numbers this owner may use: contiguous, reserved in durable blocks before they are used."""

    def __init__(self, *, first: int, reserved: int, block: int) -> None:
        self.next = first
        self.reserved = reserved
        self.block = block

    @property
    def left(self) -> int:
        return self.reserved - self.next + 1

    @property
    def last(self) -> int:
        """The greatest number in use."""
        return self.next - 1

    def take(self) -> int:
        if self.next > self.reserved:
            raise RuntimeError("an event number was used before it was reserved")
        self.next += 1
        return self.next - 1
