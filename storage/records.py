"""Rows as frozen structs: what the store takes and gives.

Times are integers in microseconds since the epoch (UTC). JSON columns are `bytes` of UTF-8 JSON text.
A *turn* and its *agent task* are one record with one id: `TaskRecord.turn_id`.
"""

from __future__ import annotations

from typing import Literal, NewType

import msgspec

UserId = NewType("UserId", str)
SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
OwnerId = NewType("OwnerId", str)

TaskStatus = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted", "dead"]
ShownStatus = Literal["queued", "waiting", "running", "succeeded", "failed", "cancelled", "interrupted", "dead"]
TerminalStatus = Literal["succeeded", "failed", "cancelled", "interrupted", "dead"]
Origin = Literal["message", "task"]
Role = Literal["system", "user", "assistant", "tool"]


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A person who can sign in; `password_hash` is an argon2id PHC string."""

    user_id: UserId
    username: str
    password_hash: str
    email: str | None = None
    is_admin: bool = False
    created_us: int


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A signed-in device; only the SHA-256 (hex) of its token is stored."""

    token_hash: str
    user_id: UserId
    created_us: int
    expires_us: int


class TicketRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A single-use credential for a browser's WebSocket or EventSource; stored as a SHA-256 (hex).

    `token_hash` is the token it was issued from, so that ending the token ends its connections.
    """

    ticket_hash: str
    user_id: UserId
    token_hash: str
    expires_us: int


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation. `reserved_seq` is the greatest event number its owners may have used."""

    session_id: SessionId
    user_id: UserId
    title: str = ""
    agent_id: str | None = None
    archived: bool = False
    created_us: int
    updated_us: int
    owner_id: OwnerId | None = None
    epoch: int = 0
    reserved_seq: int = 0
    message_count: int = 0


class Fence(msgspec.Struct, frozen=True):
    """The right under which an owner writes: refused with `StaleEpoch` once the session's epoch has grown."""

    session_id: SessionId
    epoch: int


class MessageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a session's transcript.

    `position` grows by one per session. `body` is JSON in the shape of a chat-completions message:
    {"role", "content", "reasoning"?, "tool_calls"?, "tool_call_id"?, "name"?, "usage"?, "partial"?}.
    """

    session_id: SessionId
    position: int
    turn_id: TurnId
    round: int
    role: Role
    body: bytes
    created_us: int


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored event. A coalesced run of deltas covers `first_seq..seq`; otherwise both are equal.

    `data` is the JSON object of the event's fields. `parts` (only with `first_seq < seq`) is JSON
    `[[field, length], ...]`, one pair per number in the range: the field the delta went to and its length in
    characters, so that a reader whose cursor lies inside the range gets the rest and nothing twice.
    """

    session_id: SessionId
    first_seq: int
    seq: int
    turn_id: TurnId
    kind: str
    data: bytes
    parts: bytes | None = None
    created_us: int


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The durable record of one turn: who asked, what, state, attempts.

    `attempt` counts starts; a completion is fenced by it. `crashes` counts the starts that ended with the owner,
    `failures` those that failed and are tried again, at most `max_attempts` in all. `run_at_us` is when it may start.
    `started_us` is the first start, `attempt_started_us` that of the last attempt. `suspect` says that a process died
    while it ran this: it may be why. `parent_id` is the turn that started it as a child, `depth` levels down. A turn
    that waits has in `waits_for` for what, in `waiting` (JSON) what people are told of it, and `run_at_us` is when it
    waits no longer. `request` is the accepted command as JSON. `error` is JSON {"code", "message"}; `usage` is JSON.
    """

    turn_id: TurnId
    session_id: SessionId
    user_id: UserId
    status: TaskStatus
    attempt: int = 0
    crashes: int = 0
    cancel_requested: bool = False
    request: bytes
    idempotency_key: str | None = None
    answer: str | None = None
    error: bytes | None = None
    usage: bytes | None = None
    stop_reason: str | None = None
    last_round: int = 0
    created_us: int
    started_us: int | None = None
    finished_us: int | None = None
    origin: Origin = "message"
    priority: int = 0
    run_at_us: int | None = None
    failures: int = 0
    max_attempts: int = 1
    attempt_started_us: int | None = None
    suspect: bool = False
    parent_id: TurnId | None = None
    depth: int = 0
    waits_for: str | None = None
    waiting: bytes | None = None

    @property
    def shown_status(self) -> ShownStatus:
        """The state as people see it: a turn that waits for its children is in one of its own."""
        return "waiting" if self.status == "queued" and self.waits_for is not None else self.status

    def in_line(self, now_us: int) -> bool:
        """Whether a queued task waits for its turn, and not only for its time (a retry keeps its place)."""
        return self.run_at_us is None or self.run_at_us <= now_us or self.attempt > 0


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt after which there was, or is, another: it failed, its process died, or its end was taken back."""

    turn_id: TurnId
    attempt: int
    outcome: Literal["failed", "crashed", "dead"]
    error: bytes | None = None
    started_us: int | None = None
    finished_us: int


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """A background task to enqueue, with its session if that is to be made, and its `queued` event's data."""

    task: TaskRecord
    session: SessionRecord | None = None
    event: bytes


class Enqueued(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a `NewTask`: recorded, the earlier task with its idempotency key, or there is no such session.

    `owner_id` is the live owner of its session, who has to be told.
    """

    task: TaskRecord | None
    duplicate: bool = False
    owner_id: OwnerId | None = None


class ClaimedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a pool has claimed, with its session: the pool is the owner now.

    `opened.running` is the task if it ran when its last owner died.
    """

    task: TaskRecord
    opened: OpenedSession


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks are queued in all and (of those asked for) by user; counted up to a bound."""

    total: int
    by_user: dict[UserId, int]


class OpenedSession(msgspec.Struct, frozen=True, kw_only=True):
    """What a new owner gets with the session: its epoch, its numbers, and the turns it has to care for.

    The owner may use `first_seq..session.reserved_seq`. `last_seq` is the greatest stored event number: with
    `first_seq > last_seq + 1` the numbers between were lost with the last owner and the jump must be announced.
    """

    session: SessionRecord
    first_seq: int
    last_seq: int
    running: TaskRecord | None
    queued: tuple[TaskRecord, ...]


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of accepting a turn; `duplicate` is the earlier task with the same idempotency key."""

    duplicate: TaskRecord | None = None


class SessionPage(msgspec.Struct, frozen=True):
    """One page of a user's sessions and how many there are in all."""

    total: int
    items: tuple[SessionRecord, ...]


class EventBatch(msgspec.Struct, frozen=True):
    """Events of one session to append under one fence."""

    fence: Fence
    events: tuple[EventRecord, ...]
