"""Rows of the outbox: what is to be sent, each attempt at it, and what became of both."""

from __future__ import annotations

from typing import Literal

import msgspec

from storage.records import OwnerId, TurnId

OutboxState = Literal["pending", "sending", "sent", "dead", "dropped"]
AttemptOutcome = Literal["sent", "refused", "lost", "crashed"]


class NewOutboxItem(msgspec.Struct, frozen=True, kw_only=True):
    """Something to send, once recorded: the same `delivery_id` is recorded, and so made, only once.

    `body` is the channel's own JSON. `turn_id` is the turn whose end it tells of: recorded with it, or not at all.
    """

    delivery_id: str
    channel: str
    account: str
    peer: str
    body: bytes
    turn_id: TurnId | None = None
    created_us: int

    def __post_init__(self) -> None:
        for name in ("channel", "account"):
            value = getattr(self, name)
            if not value or any(char.isspace() for char in value):
                raise ValueError(f"{name}: expected a word, got {value!r}")

    @property
    def route(self) -> str:
        """One account of one channel: what is bounded, and left alone when its provider is away."""
        return f"{self.channel} {self.account}"

    @property
    def line(self) -> str:
        """One peer of a route: what is sent in order."""
        return f"{self.channel} {self.account} {self.peer}"


class OutboxItem(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded delivery. `attempt` counts sends and is their fence; `failures` are those that count since the
    last (re)start of its budget; `first_us` is when the first of these began, `due_us` when it may be sent next."""

    delivery_id: str
    channel: str
    account: str
    peer: str
    route: str
    seq: int
    state: OutboxState
    ready: bool
    due_us: int
    body: bytes
    turn_id: TurnId | None
    attempt: int
    failures: int
    owner_id: OwnerId | None
    claimed_us: int | None
    first_us: int | None
    code: str | None
    created_us: int
    finished_us: int | None


class OutboxResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one attempt and what is next: sent, dead, or pending until `due_us`.

    `outcome` None says that nothing was tried (a claim whose answer was lost): it leaves no attempt, and counts for
    nothing. `detail` is the head of the provider's answer.
    """

    delivery_id: str
    attempt: int
    state: Literal["pending", "sent", "dead"]
    due_us: int
    outcome: AttemptOutcome | None
    counted: bool = True
    status: int | None = None
    code: str | None = None
    detail: str | None = None
    finished_us: int


class OutboxAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as it ended."""

    attempt: int
    outcome: AttemptOutcome
    status: int | None
    code: str | None
    detail: str | None
    started_us: int | None
    finished_us: int


class OutboxFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries; what is None does not matter."""

    state: OutboxState | None = None
    channel: str | None = None
    account: str | None = None
