"""Events: their kinds and their envelope."""

from __future__ import annotations

from typing import Final

import msgspec

from actors.clock import isoformat
from actors.replies import Event
from storage.records import EventRecord, SessionId

DELTA_KINDS: Final = frozenset({"llm_output_delta", "tool_output_delta"})
"""Kinds that may be coalesced, and dropped (with a gap) when the store cannot keep up."""

VOLATILE_KINDS: Final = DELTA_KINDS | {
    "progress",
    "llm_request",
    "llm_stream_retry",
    "context_usage",
    "tool_call",
}
"""Kinds that are announced before they are stored; a `rewind` takes back those after the last commit."""

EXPIRING_KINDS: Final = ("llm_output_delta", "tool_output_delta", "progress", "llm_request", "context_usage")
"""Kinds that retention removes; the rest stays as long as its session."""

JUMP_KINDS: Final = frozenset({"rewind", "gap"})
"""Kinds that stand for the numbers missing before them."""

TERMINAL: Final = "turn_terminal"

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode


def envelope(session_id: str, turn_id: str, now_us: int, data: bytes, *, first_seq: int = 0, seq: int = 0) -> bytes:
    """The JSON that clients get. Ids are of [A-Za-z0-9_.:@-], so they need no escaping."""
    first = b',"first_id":%d' % first_seq if first_seq < seq else b""
    return b'{"session_id":"%b","turn_id":"%b","timestamp":"%b"%b,"data":%b}' % (
        session_id.encode(),
        turn_id.encode(),
        isoformat(now_us).encode(),
        first,
        data,
    )


def from_record(record: EventRecord, epoch: int) -> Event:
    """A stored event as clients get it."""
    body = envelope(
        record.session_id,
        record.turn_id,
        record.created_us,
        record.data,
        first_seq=record.first_seq,
        seq=record.seq,
    )
    return Event(record.session_id, epoch, record.first_seq, record.seq, record.turn_id, record.kind, body)


def gap(session_id: SessionId, epoch: int, *, first: int, oldest: int, latest: int, now_us: int) -> Event:
    """Says that `first..oldest-1` cannot be had any more; made by readers, never stored."""
    data = encode_json({"from": first, "oldest": oldest, "latest": latest})
    body = envelope(session_id, "", now_us, data)
    return Event(session_id, epoch, first, oldest - 1, "", "gap", body)
