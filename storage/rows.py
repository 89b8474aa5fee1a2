"""Rows to records and records to parameters: JSON is bytes in records and text in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.database import Row
from storage.records import AttemptRecord, EventRecord, MessageRecord, SessionRecord, TaskRecord, UserRecord


def user_record(row: Row) -> UserRecord:
    """A row with the columns of {user}."""
    return UserRecord(
        user_id=row["user_id"],
        username=row["username"],
        password_hash=row["password_hash"],
        email=row["email"],
        is_admin=bool(row["is_admin"]),
        created_us=row["created_us"],
    )


def session_record(row: Row) -> SessionRecord:
    """A row with the columns of {session}."""
    return SessionRecord(
        session_id=row["session_id"],
        user_id=row["user_id"],
        title=row["title"],
        agent_id=row["agent_id"],
        archived=bool(row["archived"]),
        created_us=row["created_us"],
        updated_us=row["updated_us"],
        owner_id=row["owner_id"],
        epoch=row["epoch"],
        reserved_seq=row["reserved_seq"],
        message_count=row["message_count"],
    )


def task_record(row: Row) -> TaskRecord:
    """A row with the columns of {task}."""
    return TaskRecord(
        turn_id=row["turn_id"],
        session_id=row["session_id"],
        user_id=row["user_id"],
        status=row["status"],
        attempt=row["attempt"],
        crashes=row["crashes"],
        cancel_requested=bool(row["cancel_requested"]),
        request=row["request"].encode(),
        idempotency_key=row["idempotency_key"],
        answer=row["answer"],
        error=_bytes(row["error"]),
        usage=_bytes(row["usage"]),
        stop_reason=row["stop_reason"],
        last_round=row["last_round"],
        created_us=row["created_us"],
        started_us=row["started_us"],
        finished_us=row["finished_us"],
        origin=row["origin"],
        priority=row["priority"],
        run_at_us=row["run_at_us"],
        failures=row["failures"],
        max_attempts=row["max_attempts"],
        attempt_started_us=row["attempt_started_us"],
        suspect=bool(row["suspect"]),
        parent_id=row["parent_id"],
        depth=row["depth"],
        waits_for=row["waits_for"],
        waiting=_bytes(row["waiting"]),
    )


def attempt_record(row: Row) -> AttemptRecord:
    """A row of task_attempts."""
    return AttemptRecord(
        turn_id=row["turn_id"],
        attempt=row["attempt"],
        outcome=row["outcome"],
        error=_bytes(row["error"]),
        started_us=row["started_us"],
        finished_us=row["finished_us"],
    )


def maybe_task(row: Row | None) -> TaskRecord | None:
    """The task of a row, if there is a row."""
    return None if row is None else task_record(row)


def message_record(row: Row) -> MessageRecord:
    """A row of messages."""
    return MessageRecord(
        session_id=row["session_id"],
        position=row["position"],
        turn_id=row["turn_id"],
        round=row["round"],
        role=row["role"],
        body=row["body"].encode(),
        created_us=row["created_us"],
    )


def event_record(row: Row) -> EventRecord:
    """A row of events."""
    return EventRecord(
        session_id=row["session_id"],
        first_seq=row["first_seq"],
        seq=row["seq"],
        turn_id=row["turn_id"],
        kind=row["kind"],
        data=row["data"].encode(),
        parts=_bytes(row["parts"]),
        created_us=row["created_us"],
    )


def message_rows(messages: Sequence[MessageRecord]) -> list[tuple[Any, ...]]:
    """Parameters of insert_messages."""
    return [(m.session_id, m.position, m.turn_id, m.round, m.role, m.body.decode(), m.created_us) for m in messages]


def event_rows(events: Sequence[EventRecord]) -> list[tuple[Any, ...]]:
    """Parameters of insert_events."""
    return [
        (
            e.session_id,
            e.first_seq,
            e.seq,
            e.turn_id,
            e.kind,
            e.data.decode(),
            json_text(e.parts),
            e.created_us,
        )
        for e in events
    ]


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    """Rows turned into columns; `width` empty ones when there is no row."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def json_text(data: bytes | None) -> str | None:
    """JSON as the database keeps it."""
    return None if data is None else data.decode()


def plain_text(text: str | None) -> str | None:
    """Free text without what a database cannot keep: NUL and lone surrogates become U+FFFD."""
    if text is None or ("\x00" not in text and _is_utf8(text)):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
