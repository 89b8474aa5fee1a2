"""Records with only what a test cares about."""

from __future__ import annotations

from typing import Any

from storage.records import (
    EventBatch,
    EventRecord,
    Fence,
    MessageRecord,
    OwnerId,
    SessionId,
    SessionRecord,
    TaskRecord,
    TokenRecord,
    TurnId,
    UserId,
    UserRecord,
)
from storage.store import AsyncStorageBackend

USER = UserId("u1")
SESSION = SessionId("s1")
OWNER = OwnerId("o1")


def user(user_id: str = USER, username: str = "Ada", **fields: Any) -> UserRecord:
    return UserRecord(user_id=UserId(user_id), username=username, password_hash="$argon2id$", created_us=1, **fields)


def token(token_hash: str, user_id: UserId = USER, expires_us: int = 100) -> TokenRecord:
    return TokenRecord(token_hash=token_hash, user_id=user_id, created_us=1, expires_us=expires_us)


def session(session_id: str = SESSION, user_id: str = USER, created_us: int = 1, **fields: Any) -> SessionRecord:
    return SessionRecord(
        session_id=SessionId(session_id),
        user_id=UserId(user_id),
        created_us=created_us,
        updated_us=created_us,
        **fields,
    )


def message(position: int, turn: str = "t1", body: bytes = b'{"content":"hi"}', **fields: Any) -> MessageRecord:
    values = {"session_id": SESSION, "round": 0, "role": "user", "created_us": 10, **fields}
    return MessageRecord(position=position, turn_id=TurnId(turn), body=body, **values)


def event(seq: int, kind: str = "delta", **fields: Any) -> EventRecord:
    values = {
        "session_id": SESSION, "first_seq": seq, "turn_id": TurnId("t1"), "data": b'{"text":"x"}',
        "created_us": seq, **fields,
    }  # fmt: skip
    return EventRecord(seq=seq, kind=kind, **values)


def task(turn_id: str = "t1", status: Any = "running", **fields: Any) -> TaskRecord:
    values = {"session_id": SESSION, "user_id": USER, "request": b'{"text":"hi"}', "created_us": 10, **fields}
    return TaskRecord(turn_id=TurnId(turn_id), status=status, **values)


def batch(fence: Fence, *events: EventRecord) -> EventBatch:
    return EventBatch(fence, events)


async def owner(store: AsyncStorageBackend, owner_id: str = OWNER, lease_s: float = 60) -> OwnerId:
    await store.register_owner(OwnerId(owner_id), "node", lease_s=lease_s)
    return OwnerId(owner_id)


async def fence(store: AsyncStorageBackend, session_id: str = SESSION, owner_id: str = OWNER) -> Fence:
    """A session that the owner has open, both made if need be."""
    await store.create_session(session(session_id))
    opened = await store.open_session(SessionId(session_id), await owner(store, owner_id), seq_block=1000, now_us=5)
    return Fence(SessionId(session_id), opened.session.epoch)


async def accept(store: AsyncStorageBackend, fence: Fence, turn: TaskRecord, *messages: MessageRecord) -> None:
    accepted = await store.accept_turn(fence, turn, messages=messages, events=[])
    assert accepted.duplicate is None


async def finish(store: AsyncStorageBackend, fence: Fence, turn: str = "t1", attempt: int = 1, **fields: Any) -> bool:
    values = {
        "status": "succeeded", "answer": "yes", "error": None, "usage": b'{"tokens":1}', "stop_reason": "stop",
        "messages": [], "events": [], "now_us": 99, **fields,
    }  # fmt: skip
    return await store.finish_turn(fence, TurnId(turn), attempt, **values)
