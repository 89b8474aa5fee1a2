"""What processes answer each other, and the events they pass on; see `messages` for what they ask."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.errors import WunderError, error_classes
from actors.histogram import Histogram
from storage.records import SessionId, TurnId, UserId


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


class Draining(Reply, tag="draining", frozen=True):
    """Background tasks that leave one pool, or all of them, per second while others wait; None while it is unknown."""

    per_s: float | None = None


class Description(Reply, tag="description", frozen=True):
    """Numbers of a process; `gauges` and `histograms` by metric name, `info` for people."""

    gauges: dict[str, float]
    info: dict[str, Any] = {}
    histograms: dict[str, Histogram] = {}


AnyReply = (
    Done
    | Failed
    | Submitted
    | CancelReceipt
    | Following
    | Buffered
    | Location
    | PermitAnswers
    | Returned
    | Draining
    | Description
)

_replies: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


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
