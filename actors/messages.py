"""What the processes say to each other, as plain msgpack bytes: commands down, replies and events up.

One encoded command, one encoded reply; errors travel as `Failed` and are raised again by the caller, as the same class.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.errors import WunderError, error_classes
from storage.records import OwnerId, SessionId, TurnId, UserId

BusyPolicy = Literal["enqueue", "reject", "interrupt"]


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event of a session, encoded once: `body` is the JSON envelope that SSE and WebSocket both carry.

    It covers the numbers `first_seq..seq` (one number unless it is a coalesced run of deltas).
    """

    session_id: SessionId
    epoch: int
    first_seq: int
    seq: int
    turn_id: str
    kind: str
    body: bytes


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of everything a process can be asked."""


class Submit(Command, tag="submit", frozen=True):
    """Accept a turn. `gateway` follows the session from here on, if given (`number` as in `Follow`).

    `again` says that an earlier try with this `turn_id` had no answer and may have been accepted.
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
    gateway: str | None = None
    number: int = 0
    again: bool = False


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
    """There are tasks for the pools: to the directory, which tells each of them."""


class Wake(Command, tag="wake", frozen=True):
    """To a pool: look for tasks now."""


class PickUp(Command, tag="pick_up", frozen=True):
    """Tasks were queued for a session of yours without you."""

    session_id: SessionId


class Report(Command, tag="report", frozen=True):
    """Tell the directory who you are and what you hold: it has restarted."""


class Sweep(Command, tag="sweep", frozen=True):
    """Look for sessions without an owner now."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of everything a process can answer."""


class Done(Reply, tag="ok", frozen=True):
    """Nothing to tell."""


class Failed(Reply, tag="failed", frozen=True):
    """A `WunderError`, by class name."""

    error: str
    message: str
    hint: str | None = None
    field: str | None = None
    retry_after_s: float | None = None
    detail: dict[str, Any] | None = None


class Submitted(Reply, tag="submitted", frozen=True):
    """A turn is durable. Its events come after `after`; `epoch` and `latest` describe the session's stream.

    With `duplicate` it is the earlier turn with the same idempotency key, maybe of another session.
    """

    session_id: SessionId
    turn_id: TurnId
    status: str
    after: int
    epoch: int
    latest: int
    position: int = 0
    reason: str | None = None
    duplicate: bool = False


class CancelReceipt(Reply, tag="cancelled", frozen=True):
    """The cancel is recorded (`cancelled`), or there was nothing to cancel; `status` is the turn's."""

    cancelled: bool
    turn_id: TurnId | None
    status: str | None


class Following(Reply, tag="following", frozen=True):
    """From now on events after `latest` are on the line. `active_turn` is running or next to run."""

    user_id: UserId
    epoch: int
    latest: int
    active_turn: TurnId | None
    running: bool


class Buffered(Reply, tag="buffered", frozen=True):
    """Events after the cursor, or none with `too_old`: everything up to `base` is in the store."""

    events: tuple[Event, ...]
    base: int
    latest: int
    too_old: bool


class Location(Reply, tag="location", frozen=True):
    """The session actor to ask."""

    actor: str


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """Held now, or waiting at `position`, or refused for `reason` (neither)."""

    granted: bool
    waiting: bool = False
    position: int = 0
    reason: str | None = None


class PermitAnswers(Reply, tag="permits", frozen=True):
    """The answer to each `Acquire`, None for each `Release`."""

    permits: tuple[Permit | None, ...]


class Returned(Reply, tag="returned", frozen=True):
    """Sessions that do not hold a permit any more."""

    session_ids: tuple[SessionId, ...]


class Description(Reply, tag="description", frozen=True):
    """Numbers of a process; `gauges` by metric name, `info` for people."""

    gauges: dict[str, float]
    info: dict[str, Any] = {}


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
    | Locate
    | RegisterActor
    | PermitCalls
    | ReturnPermits
    | Passivated
    | RegisterGateway
    | TokenEnded
    | Batch
    | WakePools
    | Wake
    | PickUp
    | Report
    | Sweep
)
AnyReply = (
    Done | Failed | Submitted | CancelReceipt | Following | Buffered | Location | PermitAnswers | Returned | Description
)

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
_replies: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


def encode(message: Command | Reply) -> bytes:
    return _encoder.encode(message)


def decode_command(data: bytes) -> AnyCommand:
    return _commands.decode(data)


def decode_reply(data: bytes) -> AnyReply:
    """The reply; a `Failed` is raised as the error it stands for."""
    reply = _replies.decode(data)
    if isinstance(reply, Failed):
        raise to_error(reply)
    return reply


def to_failed(error: WunderError) -> Failed:
    return Failed(
        error=type(error).__name__,
        message=error.message,
        hint=error.hint,
        field=error.field,
        retry_after_s=error.retry_after_s,
        detail=error.detail,
    )


def to_error(failed: Failed) -> WunderError:
    return error_classes().get(failed.error, WunderError)(
        failed.message,
        hint=failed.hint,
        field=failed.field,
        retry_after_s=failed.retry_after_s,
        detail=failed.detail,
    )
