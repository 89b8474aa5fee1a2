"""How deliveries are recorded in their lines, and claimed from them.

    recorded ──► ready, when it is the first in its line ──► claimed: an attempt ──► sent or dead: the next is ready
                     ▲                                            │
                     └────────────── later, the same one ◄────────┘

Whoever adds to a line or takes from it holds the line's row, and `open` is read with it: so a delivery that finds the
line empty, and the end that empties it, never miss each other. A claim finds only what can be sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from storage.database import Database, Row, Runner
from storage.outbox_records import NewOutboxItem
from storage.records import OwnerId
from storage.rows import plain_text


class OutboxClaimer(Protocol):
    """Claims deliveries: of concurrent claimers exactly one gets each, and none waits for another."""

    async def claim(self, owner_id: OwnerId, routes: Sequence[tuple[str, int]], now_us: int) -> Sequence[Row]:
        """What is due of each route, at most so many; nothing without a live lease."""


class SteppedOutboxClaimer:
    """A statement for each route: what SQLite does best."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, owner_id: OwnerId, routes: Sequence[tuple[str, int]], now_us: int) -> Sequence[Row]:
        async def body(tx: Runner) -> list[Row]:
            live = await tx.fetchrow("owner_is_live", owner_id)
            if live is None or not live["live"]:
                return []
            return [
                row for route, free in routes for row in await tx.fetch("claim_route", owner_id, route, now_us, free)
            ]

        return await self._db.transact(body)


class MergedOutboxClaimer:
    """One statement for all routes: what Postgres does best."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, owner_id: OwnerId, routes: Sequence[tuple[str, int]], now_us: int) -> Sequence[Row]:
        names, free = [route for route, _ in routes], [free for _, free in routes]
        return await self._db.fetch("claim_routes", owner_id, names, now_us, free)


async def post_step(tx: Runner, items: Sequence[NewOutboxItem]) -> int:
    """Record deliveries that are new, in their lines; how many were. Lines are locked in order."""
    posted = 0
    for item in sorted(items, key=lambda item: item.line):
        known = await tx.fetchrow("known_delivery", item.delivery_id)
        if known is not None and known["found"]:
            continue
        line = await tx.fetchrow("extend_line", plain_text(item.line), item.created_us)
        assert line is not None  # noqa: S101 - an upsert returns its row
        await tx.execute("post_item", *_post_params(item, line["last_seq"], ready=line["open"] == 1))
        posted += 1
    return posted


def _post_params(item: NewOutboxItem, seq: int, *, ready: bool) -> tuple[object, ...]:
    return (
        item.delivery_id,
        item.channel,
        item.account,
        plain_text(item.peer),
        item.route,
        plain_text(item.line),
        seq,
        ready,
        item.created_us,
        item.body.decode(),
        item.turn_id,
    )


def outbox_json(items: Sequence[NewOutboxItem]) -> str:
    """Deliveries as the one parameter of a merged statement."""
    if not items:
        return "[]"
    rows = [
        {
            "delivery_id": item.delivery_id,
            "channel": item.channel,
            "account": item.account,
            "peer": plain_text(item.peer),
            "route": item.route,
            "line": plain_text(item.line),
            "body": item.body.decode(),
            "turn_id": item.turn_id,
            "created_us": item.created_us,
            "place": place,
        }
        for place, item in enumerate(items)
    ]
    return msgspec.json.encode(rows).decode()
