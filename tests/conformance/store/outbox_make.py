"""Deliveries with only what a test cares about."""

from __future__ import annotations

from typing import Any

from storage.outbox_records import NewOutboxItem, OutboxItem, OutboxResult
from storage.records import OwnerId, TurnId
from storage.store import AsyncStorageBackend

SENDER = OwnerId("sender-1")


def item(
    delivery_id: str, peer: str = "p", account: str = "a", channel: str = "memory", **fields: Any
) -> NewOutboxItem:
    values: dict[str, Any] = {"body": b'{"text":"hi"}', "created_us": 10, **fields}
    return NewOutboxItem(delivery_id=delivery_id, channel=channel, account=account, peer=peer, **values)


def of_turn(turn: str = "t1", delivery_id: str = "", **fields: Any) -> NewOutboxItem:
    return item(delivery_id or f"d-{turn}", turn_id=TurnId(turn), **fields)


def result(claimed: OutboxItem, state: Any = "sent", outcome: Any = "sent", **fields: Any) -> OutboxResult:
    values: dict[str, Any] = {"due_us": 50, "finished_us": 60, "status": 200, "counted": outcome != "sent", **fields}
    return OutboxResult(
        delivery_id=claimed.delivery_id, attempt=claimed.attempt, state=state, outcome=outcome, **values
    )


async def sender(store: AsyncStorageBackend, owner: OwnerId = SENDER) -> OwnerId:
    await store.register_owner(owner, "node", lease_s=60)
    return owner


async def claim(
    store: AsyncStorageBackend, free: int = 10, owner: OwnerId = SENDER, now_us: int = 50, route: str = ""
) -> list[OutboxItem]:
    """Of every route that has something ready, at most `free`."""
    routes = [(found, free) for found, _ in await store.ready_routes() if not route or found == route]
    return await store.claim_outbox(owner, routes, now_us=now_us)


def ids(items: list[OutboxItem]) -> list[str]:
    return sorted(item.delivery_id for item in items)
