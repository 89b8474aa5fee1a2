"""The wire's types: what clients may send, and the frames they get. In words: PROTOCOL.md."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from actors.errors import InvalidRequest
from actors.replies import Event
from storage.outbox_records import OutboxState

PROTOCOL_VERSION: Final = 1
MAX_CONTENT_CHARS: Final = 200_000
_NO_NUL = r"^[^\u0000]*$"

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:@-]{1,128}$(?!\n)")]
RequestId = Annotated[str, Meta(min_length=1, max_length=128)]
Content = Annotated[str, Meta(min_length=1, max_length=MAX_CONTENT_CHARS, pattern=_NO_NUL)]
Title = Annotated[str, Meta(max_length=200, pattern=_NO_NUL)]
Name = Annotated[str, Meta(max_length=128, pattern=_NO_NUL)]
Key = Annotated[str, Meta(min_length=1, max_length=200, pattern=_NO_NUL)]
Cursor = Annotated[int, Meta(ge=0)]
Version = Annotated[int, Meta(ge=0, le=65_535)]
Busy = Literal["enqueue", "reject", "interrupt"]
FrameType = Literal["ready", "ack", "event", "error", "pong"]
EventKind = Literal[
    "queued",
    "queue_start",
    "task_retry",
    "turn_waiting",
    "progress",
    "llm_request",
    "llm_output_delta",
    "llm_stream_retry",
    "llm_output",
    "context_usage",
    "tool_call",
    "tool_output_delta",
    "tool_result",
    "round_usage",
    "final",
    "error",
    "turn_terminal",
    "rewind",
    "gap",
    "heartbeat",
]


class CloseCode:
    """WebSocket close codes."""

    GOING_AWAY: Final = 1001
    POLICY: Final = 1008
    TOO_BIG: Final = 1009
    DRAINING: Final = 1012
    TOKEN_ENDED: Final = 4401
    NO_PONG: Final = 4408
    TOO_MANY: Final = 4429
    TOO_SLOW: Final = 4508


class Attachment(msgspec.Struct, frozen=True):
    """A text, or a picture as a data URL."""

    content: Annotated[str, Meta(max_length=1_000_000, pattern=_NO_NUL)]
    name: Annotated[str, Meta(max_length=256, pattern=_NO_NUL)] | None = None
    content_type: Name | None = None


class ConfigOverrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one turn may change."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    max_rounds: Annotated[int, Meta(ge=1, le=100)] | UnsetType = UNSET
    max_output: Annotated[int, Meta(ge=1, le=10_000_000)] | UnsetType = UNSET
    system_prompt: Annotated[str, Meta(max_length=100_000, pattern=_NO_NUL)] | UnsetType = UNSET


class TurnOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every way to start a turn takes besides its text."""

    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=16)] = ()
    busy: Busy | None = None
    allow_queue: bool = True
    idempotency_key: Key | None = None
    model_name: Name | None = None
    tool_names: Annotated[tuple[Name, ...], Meta(max_length=128)] | None = None
    config_overrides: ConfigOverrides = ConfigOverrides()


class WebhookBody(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told how a task ended."""

    url: Annotated[str, Meta(min_length=1, max_length=2048, pattern=_NO_NUL)]
    secret: Annotated[str, Meta(max_length=128, pattern=_NO_NUL)] | None = None


class ReplyBody(msgspec.Struct, frozen=True, kw_only=True):
    """To which chat of which account a task's answer is sent."""

    account: Annotated[str, Meta(min_length=1, max_length=64, pattern=_NO_NUL)]
    peer: Annotated[str, Meta(min_length=1, max_length=200, pattern=_NO_NUL)]
    thread: Annotated[str, Meta(min_length=1, max_length=200, pattern=_NO_NUL)] | None = None


class TaskBody(TurnOptions, frozen=True, kw_only=True):
    """POST /wunder/tasks."""

    question: Content
    user_id: Id | None = None
    session_id: Id | None = None
    agent_id: Id | None = None
    run_at: Annotated[datetime, Meta(tz=True)] | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    webhook: WebhookBody | None = None
    reply: ReplyBody | None = None


class OutboxBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /wunder/admin/outbox/retry and /drop: deliveries by id, or the newest in a state."""

    delivery_ids: (
        Annotated[tuple[Annotated[str, Meta(max_length=256, pattern=_NO_NUL)], ...], Meta(max_length=1000)] | None
    ) = None
    state: OutboxState | None = None
    channel: Name | None = None
    account: Annotated[str, Meta(max_length=512, pattern=_NO_NUL)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AnswerBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /wunder/tasks/{task_id}/answer."""

    call_id: Annotated[str, Meta(min_length=1, max_length=200)]
    answer: Annotated[str, Meta(min_length=1, max_length=100_000)]


GraceSeconds = Annotated[float, Meta(ge=1, le=86_400)]
CronText = Annotated[str, Meta(min_length=1, max_length=200, pattern=_NO_NUL)]
Zone = Annotated[str, Meta(min_length=1, max_length=64, pattern=_NO_NUL)]
Missed = Literal["skip", "latest", "all"]


class ScheduleBody(TurnOptions, frozen=True, kw_only=True):
    """POST /wunder/cron."""

    question: Content
    name: Title = ""
    at: datetime | None = None
    every: float | None = None
    cron: CronText | None = None
    zone: Zone | None = None
    missed: Missed = "latest"
    grace_s: GraceSeconds | None = None
    paused: bool = False
    user_id: Id | None = None
    session_id: Id | None = None
    agent_id: Id | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None


class UpdateScheduleBody(msgspec.Struct, frozen=True, kw_only=True):
    """PATCH /wunder/cron/{schedule_id}: what is missing stays as it is."""

    name: Title | UnsetType = UNSET
    at: datetime | None = None
    every: float | None = None
    cron: CronText | None = None
    zone: Zone | UnsetType = UNSET
    missed: Missed | UnsetType = UNSET
    grace_s: GraceSeconds | UnsetType = UNSET
    paused: bool | UnsetType = UNSET
    session_id: Id | UnsetType | None = UNSET
    question: Content | UnsetType = UNSET
    agent_id: Id | UnsetType | None = UNSET
    model_name: Name | UnsetType | None = UNSET
    tool_names: Annotated[tuple[Name, ...], Meta(max_length=128)] | UnsetType | None = UNSET
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=16)] | UnsetType = UNSET
    config_overrides: ConfigOverrides | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=-100, le=100)] | UnsetType = UNSET
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | UnsetType | None = UNSET


class AskBody(TurnOptions, frozen=True, kw_only=True):
    """POST /wunder."""

    question: Content
    user_id: Id | None = None
    session_id: Id | None = None
    agent_id: Id | None = None
    stream: bool = True


class MessageBody(TurnOptions, frozen=True, kw_only=True):
    """POST /wunder/chat/sessions/{id}/messages."""

    content: Content
    stream: bool = True


class CreateSessionBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /wunder/chat/sessions."""

    title: Title = ""
    agent_id: Id | None = None
    user_id: Id | None = None


class UpdateSessionBody(msgspec.Struct, frozen=True, kw_only=True):
    """PATCH /wunder/chat/sessions/{id}."""

    title: Title | None = None
    archived: bool | None = None


class CancelBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /wunder/chat/sessions/{id}/cancel."""

    turn_id: Id | None = None


class DrainBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /wunder/admin/nodes/{node_id}/drain."""

    undo: bool = False


class ClientFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Any frame of a client; `payload` is decoded by `type`."""

    type: Annotated[str, Meta(max_length=64)]
    request_id: RequestId | None = None
    session_id: Id | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class ConnectPayload(msgspec.Struct, frozen=True, kw_only=True):
    protocol_version: Version | None = None
    min_protocol_version: Version | None = None
    max_protocol_version: Version | None = None
    client: Any = None


class StartPayload(TurnOptions, frozen=True, kw_only=True):
    content: Content | None = None
    question: Content | None = None
    session_id: Id | None = None
    agent_id: Id | None = None
    user_id: Id | None = None
    stream: bool = True


class ResumePayload(msgspec.Struct, frozen=True, kw_only=True):
    session_id: Id | None = None
    after_event_id: Cursor | str = 0


class WatchPayload(msgspec.Struct, frozen=True, kw_only=True):
    session_id: Id | None = None
    after_event_id: Cursor | str | None = None


class CancelPayload(msgspec.Struct, frozen=True, kw_only=True):
    request_id: RequestId | None = None
    session_id: Id | None = None
    turn_id: Id | None = None


PAYLOADS: Final[dict[str, type[msgspec.Struct]]] = {
    "connect": ConnectPayload,
    "start": StartPayload,
    "resume": ResumePayload,
    "watch": WatchPayload,
    "cancel": CancelPayload,
    "ping": ConnectPayload,
}

_encode = msgspec.json.Encoder().encode
_DIGITS = re.compile(r"[0-9]{1,18}")


def cursor(value: int | str, field: str = "after_event_id") -> int:
    """A cursor as a number; `InvalidRequest` names the field."""
    if isinstance(value, int) and 0 <= value < 10**18:
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise InvalidRequest(f"{field}: expected a number >= 0, got {str(value)[:40]!r}", field=field)


def frame(type_: FrameType, request_id: str | None, payload: Any) -> bytes:
    """A frame to a client."""
    message: dict[str, Any] = {"type": type_}
    if request_id is not None:
        message["request_id"] = request_id
    message["payload"] = payload
    return _encode(message)


class EventFrames:
    """Events as WebSocket frames of one request: only the number and the kind are written anew."""

    def __init__(self, request_id: str) -> None:
        self._head = b'{"type":"event","request_id":' + _encode(request_id) + b',"payload":{"event":"'

    def __call__(self, event: Event) -> bytes:
        return b'%b%b","id":%d,"data":%b}}' % (self._head, event.kind.encode(), event.seq, event.body)


def sse_event(event: Event) -> bytes:
    """An event as server-sent event."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.kind.encode(), event.body)
