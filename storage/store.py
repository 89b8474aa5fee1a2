"""`AsyncStorageBackend`: everything Wunder asks of a database, in one interface.

Writes that belong to a session carry a `Fence` and raise `StaleEpoch` (writing nothing) when the session has a
newer owner. Every method may raise `StorageUnavailable`; after it a write may or may not have happened, so each
write is safe to repeat with the same arguments. Leases are kept in the database's own time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from storage.channel_records import ChannelStorage
from storage.migrate import Migrated
from storage.outbox_records import NewOutboxItem
from storage.outbox_store import OutboxStorage
from storage.queue_writer import FinishedTurn
from storage.records import (
    Accepted,
    AttemptRecord,
    ClaimedTask,
    Enqueued,
    EventBatch,
    EventRecord,
    Fence,
    MessageRecord,
    NewTask,
    OpenedSession,
    OwnerId,
    QueueDepth,
    SessionId,
    SessionPage,
    SessionRecord,
    TaskRecord,
    TerminalStatus,
    TicketRecord,
    TokenRecord,
    TurnId,
    UserId,
    UserRecord,
)
from storage.schedule_store import ScheduleStorage


class UserStorage(Protocol):
    """Users, access tokens and tickets."""

    async def create_user(self, user: UserRecord) -> None:
        """Add a user; `Conflict` (field "username") if the name is taken, compared without case."""

    async def create_first_admin(self, user: UserRecord) -> bool:
        """Add an admin only if there is none, in one transaction; False if there was one already."""

    async def has_admin(self) -> bool: ...
    async def find_user(self, username: str) -> UserRecord | None: ...
    async def get_user(self, user_id: UserId) -> UserRecord | None: ...
    async def update_user(
        self, user_id: UserId, *, email: str | None = None, password_hash: str | None = None
    ) -> UserRecord | None:
        """Change what is not None; the user as it is afterwards, None if there is no such user."""

    async def change_password(self, user_id: UserId, password_hash: str, *, keep: str | None) -> list[str] | None:
        """Set a password and end the user's tokens except `keep`, in one transaction.

        The hashes of the tokens that ended; None if there is no such user.
        """

    async def put_token(self, token: TokenRecord) -> None: ...
    async def find_token(self, token_hash: str, now_us: int) -> tuple[TokenRecord, UserRecord] | None:
        """The unexpired token and its user."""

    async def delete_token(self, token_hash: str) -> bool: ...
    async def put_ticket(self, ticket: TicketRecord) -> None: ...
    async def take_ticket(self, ticket_hash: str, now_us: int) -> tuple[TicketRecord, UserRecord] | None:
        """Use up a ticket: of concurrent callers exactly one gets it, and only before it expires."""

    async def delete_expired_credentials(self, now_us: int) -> int: ...


class SessionStorage(Protocol):
    """Conversations, their owners and their transcripts."""

    async def create_session(self, session: SessionRecord) -> SessionRecord:
        """Add a session, or give the one that has this id if it is the same user's; else `SessionNotFound`."""

    async def get_session(self, session_id: SessionId) -> SessionRecord | None: ...
    async def list_sessions(
        self, user_id: UserId | None, *, agent_id: str | None, offset: int, limit: int
    ) -> SessionPage:
        """Newest first; every user's with `user_id=None`. Never touches messages."""

    async def update_session(
        self, session_id: SessionId, *, title: str | None = None, archived: bool | None = None, now_us: int
    ) -> SessionRecord | None: ...
    async def delete_session(self, session_id: SessionId) -> bool:
        """Remove a session with its messages, events and tasks; its owner's later writes raise `StaleEpoch`."""

    async def register_owner(self, owner_id: OwnerId, node_id: str, *, lease_s: float) -> None: ...
    async def renew_owner(self, owner_id: OwnerId, *, lease_s: float) -> bool:
        """Extend a lease that has not lapsed; False if it has (uses a connection of its own)."""

    async def expire_owner(self, owner_id: OwnerId) -> None:
        """End a lease now: its owner is known to be dead."""

    async def live_owners(self) -> list[OwnerId]: ...
    async def delete_lapsed_owners(self, *, older_than_s: float) -> int:
        """Forget owners that lapsed long ago and own no session."""

    async def open_session(
        self, session_id: SessionId, owner_id: OwnerId, *, seq_block: int, now_us: int
    ) -> OpenedSession:
        """Take a session: epoch + 1, a block of `seq_block` numbers. Repeating it as the live owner takes it anew.

        Raises `SessionNotFound`, `OwnedElsewhere` (its owner's lease is live), or `StaleEpoch` (the caller's own
        lease is not live).
        """

    async def close_session(self, fence: Fence, *, last_seq: int, now_us: int) -> None:
        """Give a session up cleanly, return its unused numbers, and leave its next task to the pools."""

    async def disown_session(self, fence: Fence) -> bool:
        """Give a session up whose last write is unknown: all reserved numbers are kept; False if the fence is old."""

    async def reserve_seq(self, fence: Fence, reserved_seq: int) -> None:
        """Raise the session's reserved number (never lowers it)."""

    async def owned_sessions(self) -> list[tuple[SessionId, OwnerId]]:
        """Sessions whose owner's lease is live."""

    async def orphaned_sessions(self, *, limit: int, now_us: int, ready: bool = True) -> list[SessionId]:
        """Sessions with a queued or running task and no live owner, oldest task first.

        Without `ready` those whose task is for the pools are left out.
        """

    async def load_messages(self, session_id: SessionId, *, limit: int) -> list[MessageRecord]:
        """The newest `limit` messages in order."""

    async def page_messages(self, session_id: SessionId, *, before: int | None, limit: int) -> list[MessageRecord]:
        """The newest `limit` messages with a position below `before`, in order."""


class TaskStorage(Protocol):
    """Turns (agent tasks). Each fenced write is one transaction: all of it or nothing."""

    async def accept_turn(
        self,
        fence: Fence,
        task: TaskRecord,
        *,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
    ) -> Accepted:
        """Record a turn as `queued`, or as `running` (attempt 1) with its user message.

        If the user already has a task with this idempotency key nothing is written and that task is given.
        Repeating the call with the same `turn_id` is harmless. `Conflict` if another turn of the session runs.
        """

    async def start_turn(
        self,
        fence: Fence,
        turn_id: TurnId,
        *,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
        now_us: int,
    ) -> TaskRecord | None:
        """queued -> running, attempt + 1; None if it is not queued any more or its cancel was requested."""

    async def resume_turn(self, fence: Fence, turn_id: TurnId, *, now_us: int) -> TaskRecord | None:
        """Take over a running turn after a crash: attempt + 1, crashes + 1; None if it is not running."""

    async def commit_round(
        self,
        fence: Fence,
        turn_id: TurnId,
        attempt: int,
        *,
        round: int,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
    ) -> bool:
        """Record messages and events of a running turn; False (nothing written) if this attempt is not running."""

    async def finish_turn(
        self,
        fence: Fence,
        turn_id: TurnId,
        attempt: int,
        *,
        status: TerminalStatus,
        answer: str | None,
        error: bytes | None,
        usage: bytes | None,
        stop_reason: str | None,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
        now_us: int,
        outbox: Sequence[NewOutboxItem] = (),
    ) -> bool:
        """Complete a turn that is queued or running at `attempt`; False if it is not, or if a cancel was
        requested and `status` is "succeeded". Repeating a completion that was recorded gives True again."""

    async def request_cancel(self, turn_id: TurnId) -> TaskRecord | None:
        """Mark a queued or running turn as to be cancelled, for every owner (no fence); the task after it."""

    async def get_task(self, turn_id: TurnId) -> TaskRecord | None: ...
    async def find_idempotent(self, user_id: UserId, key: str) -> TaskRecord | None: ...
    async def active_task(self, session_id: SessionId) -> TaskRecord | None:
        """The session's running task, else its oldest queued one."""

    async def running_tasks(self) -> list[tuple[TurnId, SessionId, UserId, OwnerId | None]]:
        """Every running turn with its session's owner: what the permits are rebuilt from."""

    async def forget_idempotency_keys(self, before_us: int) -> int: ...


class TaskQueueStorage(Protocol):
    """Background tasks: enqueued without an owner, claimed by pools. See `queue_writer` for what `ready` means."""

    async def enqueue_tasks(self, items: Sequence[NewTask], *, now_us: int) -> list[Enqueued]:
        """Record tasks, each with its session and its `queued` event; repeating the call is harmless."""

    async def queue_depth(self, user_ids: Sequence[UserId], *, most: int) -> QueueDepth:
        """How many tasks are queued, counted up to `most`."""

    async def queue_position(self, turn_id: TurnId, *, most: int) -> int | None:
        """A task's place among those for the pools, from 1; None if it is not one, or is further behind than `most`."""

    async def claim_tasks(
        self, owner_id: OwnerId, *, limit: int, seq_block: int, now_us: int, suspects: int = 1
    ) -> list[ClaimedTask]:
        """Start at most `limit` ready tasks in their order: the caller owns their sessions. None without a live lease.

        At most `suspects` of them are suspect, and those come first. Of concurrent claimers exactly one gets a task,
        and none waits for another.
        """

    async def release_orphan(self, session_id: SessionId, *, now_us: int) -> bool:
        """Leave the background task that is first in an orphaned session's line to the pools; False if there is none.

        One that ran is suspect from now on if its owner has died; one whose owner has given it up is not.
        """

    async def sessions_of_owner(self, owner_id: OwnerId) -> list[Fence]:
        """What an owner has, also by a claim or an opening whose answer it never got."""

    async def finish_and_leave(self, turns: Sequence[FinishedTurn]) -> list[bool]:
        """Complete turns and give their sessions up; False for one that is not running at its attempt any more, whose
        fence is stale, or (with status "succeeded") whose cancel was requested. Repeating gives True again."""

    async def retry_turn(
        self,
        fence: Fence,
        task: TaskRecord,
        *,
        run_at_us: int,
        error: bytes,
        messages: Sequence[MessageRecord],
        events: Sequence[EventRecord],
        now_us: int,
    ) -> bool:
        """Put a running task that failed back into its line; False if it is not running or its cancel was requested."""

    async def record_attempt(self, attempt: AttemptRecord) -> None: ...
    async def list_attempts(self, turn_id: TurnId) -> list[AttemptRecord]:
        """The attempts that did not complete the task, in order."""

    async def promote_due(self, *, limit: int, now_us: int) -> list[tuple[SessionId, OwnerId | None]]:
        """Let tasks whose time has come join their lines; their sessions, with the owner that was live."""

    async def next_due(self) -> int | None:
        """When the next task that waits for its time may start."""

    async def queued_tasks(self, session_id: SessionId, *, limit: int) -> list[TaskRecord]:
        """A session's queued tasks, oldest first."""

    async def list_tasks(
        self,
        user_id: UserId | None,
        *,
        status: str | None,
        session_id: SessionId | None,
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[TaskRecord]:
        """Newest first, older than `before` (created_us, turn_id); every user's with `user_id=None`."""

    async def requeue_task(self, turn_id: TurnId, *, now_us: int) -> Enqueued:
        """Queue a dead or failed task again; no task if it is neither."""

    async def queue_states(self) -> dict[str, tuple[int, int]]:
        """For each state that is not an end: how many tasks, and when the oldest of them was created."""


class ChildStorage(Protocol):
    """Turns that wait: for children that they have started, or for a person."""

    async def suspend_turn(
        self,
        fence: Fence,
        task: TaskRecord,
        *,
        waits_for: str,
        shown: bytes,
        until_us: int,
        events: Sequence[EventRecord],
        now_us: int,
    ) -> bool:
        """running -> waiting (queued until then); False if it is not running or its cancel was requested.

        `waits_for` has the ids of its children with spaces between, or `person:<call_id>`; `shown` is JSON for people.
        """

    async def end_wait(self, turn_id: TurnId, *, now_us: int) -> SessionId | None:
        """Make a waiting turn due now if every child that it waits for has ended; its session if it was."""

    async def end_waits(self, *, now_us: int) -> int:
        """The same for all that wait: for those whose waker died. How many there were."""

    async def answer_turn(
        self, task: TaskRecord, call_id: str, answer: bytes, *, user_id: UserId, now_us: int
    ) -> Enqueued:
        """Keep a person's answer (JSON) and let the turn go on; no task if it does not wait for this answer."""

    async def find_reply(self, turn_id: TurnId, call_id: str) -> bytes | None:
        """What a person answered to a call."""

    async def list_children(self, parent_id: TurnId, *, limit: int) -> list[TaskRecord]:
        """A turn's children in the order in which they were started."""

    async def cancel_children(self, parent_id: TurnId) -> list[tuple[TurnId, SessionId]]:
        """Mark a turn's children that have not ended as to be cancelled: none of them succeeds any more."""

    async def stray_children(self, *, limit: int) -> list[tuple[TurnId, SessionId]]:
        """Children that have not ended although their parent ended without success."""


class EventStorage(Protocol):
    """The event log of each session."""

    async def append_events(self, batches: Sequence[EventBatch]) -> list[SessionId]:
        """Append in one transaction; the sessions whose fence was stale (theirs were not written).

        Events that are already there (same session and seq) are left alone.
        """

    async def read_events(self, session_id: SessionId, *, after: int, limit: int, max_bytes: int) -> list[EventRecord]:
        """Events with `seq > after` in order: at most `limit`, and at most one beyond `max_bytes` of data."""

    async def last_event_seq(self, session_id: SessionId) -> int: ...
    async def delete_events(self, *, kinds: Sequence[str], before_us: int, limit: int) -> int:
        """Retention: remove old events of these kinds, at most `limit` rows a call."""


class AsyncStorageBackend(
    UserStorage,
    SessionStorage,
    TaskStorage,
    TaskQueueStorage,
    ChildStorage,
    ScheduleStorage,
    EventStorage,
    OutboxStorage,
    ChannelStorage,
    Protocol,
):
    """The whole store, and its life."""

    async def open(self) -> None:
        """Connect; `StorageUnavailable` when the database cannot be reached within `connect_timeout_s`."""

    async def migrate(self, *, post: bool = False) -> Migrated:
        """Bring the schema up to date under a lock; with `post` also by what older processes could not stand."""

    async def ping(self) -> None:
        """One trivial statement, within `command_timeout_s`."""

    def statements(self) -> Mapping[str, int]:
        """How often each named query has run in this process."""

    @property
    def notifies(self) -> bool:
        """Whether one process's `notify` reaches another's `listen`; if not, both do nothing."""

    def notify(self, topic: str) -> None:
        """Tell whoever listens, soon, and not for sure; a burst of these is few notifications."""

    async def listen(self, topic: str, on_notified: Callable[[], None]) -> None:
        """Call back once at the start and then whenever somebody notifies, on a connection of its own.

        Lasts until that connection is lost: `StorageUnavailable`. What is notified of meanwhile is lost, too.
        """

    async def close(self) -> None: ...
