"""What the processes say to each other, as plain msgpack bytes: commands down, replies and events up.

One encoded command, one encoded reply; errors travel as `Failed` and are raised again by the caller, as the same class.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.channels.origin import ChannelOrigin
from actors.replies import Event, Reply
from storage.records import OwnerId, SessionId, TurnId, UserId

BusyPolicy = Literal["enqueue", "reject", "interrupt"]


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of everything a process can be asked."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told how a task ended; `secret` is sealed, None means the one of the settings."""

    url: str
    secret: str | None = None


class Submit(Command, tag="submit", frozen=True):
    """Accept a turn. `gateway` follows the session from here on, if given (`number` as in `Follow`).

    `again` says that an earlier try with this `turn_id` had no answer and may have been accepted. A turn that came over
    a `channel` is answered there.
    """

    session_id: SessionId
    user_id: UserId
    turn_id: TurnId
    content: str
    create: bool = False
    title: str = ""
    agent_id: str | None = None
    model_name: str | None = None
    tool_names: tuple[str, ...] | None = None
    attachments: tuple[dict[str, Any], ...] = ()
    config_overrides: dict[str, Any] = {}
    busy: BusyPolicy = "enqueue"
    idempotency_key: str | None = None
    webhook: Webhook | None = None
    gateway: str | None = None
    number: int = 0
    again: bool = False
    channel: ChannelOrigin | None = None


class CancelTurn(Command, tag="cancel", frozen=True):
    """Cancel a turn of a session, the running one if `turn_id` is None."""

    session_id: SessionId
    user_id: UserId | None
    turn_id: TurnId | None = None


class Follow(Command, tag="follow", frozen=True):
    """Put this session's events on the line to `gateway`, until `Unfollow`. Any user's with `user_id=None`.

    `number` grows with each call of this gateway: calls may overtake each other, and the newest one counts.
    """

    session_id: SessionId
    user_id: UserId | None
    gateway: str
    number: int = 0


class Unfollow(Command, tag="unfollow", frozen=True):
    """The gateway has no reader of these sessions any more; undoes no follow with a higher `number`."""

    session_ids: tuple[SessionId, ...]
    gateway: str
    number: int = 0


class ReadBuffer(Command, tag="read", frozen=True):
    """Events after a cursor from the owner's memory."""

    session_id: SessionId
    after: int
    max_bytes: int = 262_144


class OpenSession(Command, tag="open", frozen=True):
    """Make sure the session is open here and its accepted turns go on."""

    session_id: SessionId


class DropSession(Command, tag="drop", frozen=True):
    """The session was deleted: end its turn and forget it."""

    session_id: SessionId


class Grant(Command, tag="grant", frozen=True):
    """A permit that this session waited for is now held by it."""

    session_id: SessionId


class Describe(Command, tag="describe", frozen=True):
    """Tell what this process is doing, in numbers."""


class Drain(Command, tag="drain", frozen=True):
    """Accept no new work; finish what runs within `grace_s`, then give everything up cleanly."""

    grace_s: float


class DrainNode(Command, tag="drain_node", frozen=True):
    """To the directory: place nothing on this node any more, the supervisor empties it; `undo` takes it back."""

    node_id: str
    undo: bool = False


class Locate(Command, tag="locate", frozen=True):
    """Where is this session's owner? `owner_hint` is an owner that the database named.

    `avoid` did not answer the asker. With `orphaned` the database says that no live owner has the session.
    """

    session_id: SessionId
    owner_hint: OwnerId | None = None
    avoid: str | None = None
    orphaned: bool = False


class RegisterActor(Command, tag="register", frozen=True):
    """A session actor is ready under this owner id; `held` and `waiting` are its (session, user) permits.

    A `pool` has sessions only while it runs their tasks; none is placed on it.
    """

    actor: str
    node_id: str
    owner_id: OwnerId
    pool: bool = False
    sessions: tuple[SessionId, ...] = ()
    held: tuple[tuple[SessionId, UserId], ...] = ()
    waiting: tuple[tuple[SessionId, UserId], ...] = ()


class Acquire(Command, tag="acquire", frozen=True):
    """A permit for one session to run turns (in `PermitCalls`). With `wait` a refusal becomes a place in the queue."""

    session_id: SessionId
    user_id: UserId
    actor: str
    wait: bool


class Release(Command, tag="release", frozen=True):
    """This session has nothing to run (also leaves the queue; in `PermitCalls`)."""

    session_id: SessionId
    actor: str


class PermitCalls(Command, tag="permits", frozen=True):
    """What gathered while the last call was under way: one call to the directory, worked off in this order."""

    calls: tuple[Acquire | Release, ...]


class ReturnPermits(Command, tag="return_permits", frozen=True):
    """Others wait for permits: give back those of idle sessions, and keep none for a while."""


class Passivated(Command, tag="passivated", frozen=True):
    """These sessions are not open here any more."""

    actor: str
    session_ids: tuple[SessionId, ...]


class RegisterGateway(Command, tag="gateway", frozen=True):
    """A gateway is listening on this node."""

    gateway: str
    node_id: str
    address: str


class RegisterOutbox(Command, tag="register_outbox", frozen=True):
    """An outbox sends from this node, under this owner id."""

    outbox: str
    node_id: str
    owner_id: OwnerId


class TokenEnded(Command, tag="token_ended", frozen=True):
    """Tokens were revoked: to the directory, which tells every gateway."""

    token_hashes: tuple[str, ...]


class Batch(Command, tag="b", frozen=True):
    """What gathered on a line: events in order; sessions the owner gave up; sessions whose events were cut.

    `line` is another number when the actor lost its line to this gateway, with all that followed over it.
    """

    actor: str
    owner_id: OwnerId
    line: int = 0
    events: tuple[Event, ...] = ()
    dropped: tuple[SessionId, ...] = ()
    resync: tuple[SessionId, ...] = ()


class WakePools(Command, tag="wake_pools", frozen=True):
    """There are tasks for the pools: to the directory, which tells each of them. It answers how fast they are."""


class Wake(Command, tag="wake", frozen=True):
    """To a pool: look for tasks now; it answers how fast it is. To an outbox: look for deliveries now."""


class WakeOutboxes(Command, tag="wake_outboxes", frozen=True):
    """Deliveries were recorded: to the directory, which tells each outbox."""


class PickUp(Command, tag="pick_up", frozen=True):
    """Tasks were queued for a session of yours without you."""

    session_id: SessionId


class Report(Command, tag="report", frozen=True):
    """Tell the directory who you are and what you hold: it has restarted."""


class Sweep(Command, tag="sweep", frozen=True):
    """Look for sessions without an owner now; to an outbox: for deliveries of dead ones."""


class ScheduleChanged(Command, tag="schedule_changed", frozen=True):
    """To the janitor: schedules were made or changed, one may be due sooner than it thinks."""


AnyCommand = (
    Submit
    | CancelTurn
    | Follow
    | Unfollow
    | ReadBuffer
    | OpenSession
    | DropSession
    | Grant
    | Describe
    | Drain
    | DrainNode
    | Locate
    | RegisterActor
    | PermitCalls
    | ReturnPermits
    | Passivated
    | RegisterGateway
    | RegisterOutbox
    | TokenEnded
    | Batch
    | WakePools
    | WakeOutboxes
    | Wake
    | PickUp
    | Report
    | Sweep
    | ScheduleChanged
)

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)


def encode(message: Command | Reply) -> bytes:
    return _encoder.encode(message)


def decode_command(data: bytes) -> AnyCommand:
    return _commands.decode(data)
