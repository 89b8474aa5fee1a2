"""Segments: runs of deltas stored as one row, and how a reader whose cursor lies inside one gets the rest.

live:    7 {"delta": "Hel"}   8 {"delta": "lo"}   9 {"delta": ", "}
stored:  7..9 {"delta": "Hello, "}   parts [["delta",3],["delta",2],["delta",2]]
reader with cursor 7:  8..9 {"delta": "lo, "}     (never "Hel" again)
"""

from __future__ import annotations

from typing import Any

import msgspec

from storage.records import EventRecord, SessionId, TurnId

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode


def cut(record: EventRecord, after: int) -> EventRecord:
    """The rest of a segment for a reader whose cursor lies inside it."""
    if record.parts is None or not record.first_seq <= after < record.seq:
        return record
    parts: list[tuple[str, int]] = [(str(f), int(n)) for f, n in decode_json(record.parts)]
    seen: dict[str, int] = {}
    for field, length in parts[: after - record.first_seq + 1]:
        seen[field] = seen.get(field, 0) + length
    data: dict[str, Any] = decode_json(record.data)
    for field, length in seen.items():
        data[field] = data[field][length:]
    rest = parts[after - record.first_seq + 1 :]
    left = {field for field, _ in rest}
    return msgspec.structs.replace(
        record,
        first_seq=after + 1,
        data=encode_json({k: v for k, v in data.items() if k in left or k not in seen}),
        parts=encode_json(rest) if len(rest) > 1 else None,
    )


class Segment:
    """A run of deltas of one turn, kind and round, growing until it is written.

    `head` holds the fields that all parts share (model_round, tool ...). One that was sent to the store is `closed`:
    the store may have it although it gave no answer, and a longer one would be another row with the same text.
    """

    __slots__ = ("closed", "created_us", "first_seq", "head", "key", "kind", "parts", "seq", "session_id", "turn_id")

    def __init__(
        self,
        session_id: SessionId,
        turn_id: TurnId,
        kind: str,
        head: dict[str, Any],
        *,
        first_seq: int,
        created_us: int,
    ) -> None:
        self.session_id = session_id
        self.turn_id = turn_id
        self.kind = kind
        self.head = head
        self.key = (turn_id, kind, tuple(head.items()))
        self.first_seq = first_seq
        self.seq = first_seq - 1
        self.parts: list[tuple[str, str]] = []
        self.created_us = created_us
        self.closed = False

    def add(self, field: str, text: str) -> None:
        self.parts.append((field, text))
        self.seq += 1

    def to_record(self) -> EventRecord:
        texts: dict[str, list[str]] = {}
        for field, text in self.parts:
            texts.setdefault(field, []).append(text)
        data: dict[str, Any] = {field: "".join(pieces) for field, pieces in texts.items()}
        data.update(self.head)
        lengths = [(field, len(text)) for field, text in self.parts]
        return EventRecord(
            session_id=self.session_id,
            first_seq=self.first_seq,
            seq=self.seq,
            turn_id=self.turn_id,
            kind=self.kind,
            data=encode_json(data),
            parts=encode_json(lengths) if len(lengths) > 1 else None,
            created_us=self.created_us,
        )
