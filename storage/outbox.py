"""The outbox: deliveries in, claims out, what became of each attempt, and what people do with dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from storage.database import Row, Runner
from storage.outbox_records import (
    NewOutboxItem,
    OutboxAttempt,
    OutboxFilter,
    OutboxItem,
    OutboxResult,
)
from storage.outbox_writer import post_step
from storage.records import OwnerId
from storage.rows import plain_text
from storage.topic import StoreTopic

_NEWEST = (2**62, "\uffff")


class OutboxTopic(StoreTopic):
    """`OutboxStorage` in SQL."""

    async def post_outbox(self, items: Sequence[NewOutboxItem]) -> int:
        return await self._db.transact(lambda tx: post_step(tx, items))

    async def ready_routes(self) -> list[tuple[str, int]]:
        return [(row["route"], row["due_us"]) for row in await self._db.fetch("ready_routes")]

    async def claim_outbox(
        self, owner_id: OwnerId, routes: Sequence[tuple[str, int]], *, now_us: int
    ) -> list[OutboxItem]:
        return [outbox_item(row) for row in await self._claimer.claim(owner_id, routes, now_us)]

    async def record_outbox(self, results: Sequence[OutboxResult]) -> tuple[list[bool], int]:
        given = _json([_result(result) for result in results])

        async def body(tx: Runner) -> tuple[set[str], int]:
            await tx.fetch("lock_recorded_lines", given)
            ended = await tx.fetch("record_results", given)
            done = {row["delivery_id"] for row in ended}
            await tx.execute("record_sends", _json([_result(r) for r in results if r.delivery_id in done]))
            left = [row["line"] for row in ended if row["state"] != "pending"]
            return done, await _leave_lines(tx, left)

        done, following = await self._db.transact(body)
        return [r.delivery_id in done or await self._is_recorded(r) for r in results], following

    async def _is_recorded(self, result: OutboxResult) -> bool:
        """An earlier try, whose answer was lost, has recorded this very end."""
        args = (result.delivery_id, result.attempt, result.outcome, result.finished_us)
        known = await self._db.fetchrow("known_send", *args) if result.outcome is not None else None
        return known is not None and bool(known["found"])

    async def abandoned_outbox(self, owner_id: OwnerId, *, limit: int) -> list[OutboxItem]:
        return [outbox_item(row) for row in await self._db.fetch("abandoned_items", owner_id, limit)]

    async def get_outbox(self, delivery_id: str) -> OutboxItem | None:
        row = await self._db.fetchrow("get_item", delivery_id)
        return None if row is None else outbox_item(row)

    async def outbox_attempts(self, delivery_id: str) -> list[OutboxAttempt]:
        return [_attempt(row) for row in await self._db.fetch("list_sends", delivery_id)]

    async def list_outbox(
        self, wanted: OutboxFilter, *, before: tuple[int, str] | None, limit: int
    ) -> list[OutboxItem]:
        args = (plain_text(wanted.channel), plain_text(wanted.account), *(before or _NEWEST), limit)
        if wanted.state is None:
            rows = await self._db.fetch("list_items", *args)
        else:
            rows = await self._db.fetch("list_items_in_state", wanted.state, *args)
        return [outbox_item(row) for row in rows]

    async def retry_outbox(self, delivery_ids: Sequence[str], *, now_us: int) -> list[str]:
        async def body(tx: Runner) -> list[str]:
            return [key for key, line in await _in_order(tx, delivery_ids) if await _retry(tx, key, line, now_us)]

        return await self._db.transact(body)

    async def drop_outbox(self, delivery_ids: Sequence[str], *, now_us: int) -> list[str]:
        async def body(tx: Runner) -> list[str]:
            return [key for key, line in await _in_order(tx, delivery_ids) if await _drop(tx, key, line, now_us)]

        return await self._db.transact(body)

    async def outbox_states(self) -> dict[tuple[str, str], tuple[int, int]]:
        rows = await self._db.fetch("outbox_states")
        return {(row["channel"], row["state"]): (row["items"], row["oldest_us"]) for row in rows}

    async def delete_outbox(self, *, before_us: int, limit: int) -> int:
        found = [row["delivery_id"] for row in await self._db.fetch("finished_items", before_us, limit)]
        if found:

            async def body(tx: Runner) -> None:
                await tx.execute("delete_sends", _json(found), before_us)
                await tx.execute("delete_items", _json(found), before_us)

            await self._db.transact(body)
        await self._db.execute("delete_unused_lines", before_us, limit)
        return len(found)


async def _leave_lines(tx: Runner, left: Sequence[str]) -> int:
    """Deliveries of these lines are finished; how many others are ready for it. The lines are held."""
    if not left:
        return 0
    await tx.execute("shorten_lines", _json(left))
    return await tx.execute("ready_heads", _json(sorted(set(left))))


async def _in_order(tx: Runner, delivery_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Those that exist, each with its line, in the order in which lines are locked."""
    found = [(key, await tx.fetchrow("item_line", key)) for key in dict.fromkeys(delivery_ids)]
    return sorted(((key, row["line"]) for key, row in found if row is not None), key=lambda one: (one[1], one[0]))


async def _retry(tx: Runner, delivery_id: str, line: str, now_us: int) -> bool:
    if await tx.execute("hasten_item", delivery_id, now_us):
        return True
    place = await tx.fetchrow("extend_line", line, now_us)
    assert place is not None  # noqa: S101 - an upsert returns its row
    if await tx.execute("reopen_item", delivery_id, place["open"] == 1, place["last_seq"], now_us):
        return True
    await tx.execute("shorten_lines", _json([line]))
    return False


async def _drop(tx: Runner, delivery_id: str, line: str, now_us: int) -> bool:
    await tx.fetchrow("lock_line", line)
    if await tx.execute("drop_waiting", delivery_id, now_us):
        await _leave_lines(tx, [line])
        return True
    return await tx.execute("drop_dead", delivery_id, now_us) > 0


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()


def _result(result: OutboxResult) -> dict[str, object]:
    row: dict[str, object] = msgspec.structs.asdict(result)
    texts = {"code": plain_text(result.code), "detail": plain_text(result.detail)}
    return row | texts | {"counted": int(result.counted)}


def outbox_item(row: Row) -> OutboxItem:
    """A row with the columns of {outbox_item}."""
    return OutboxItem(
        delivery_id=row["delivery_id"],
        channel=row["channel"],
        account=row["account"],
        peer=row["peer"],
        route=row["route"],
        seq=row["seq"],
        state=row["state"],
        ready=bool(row["ready"]),
        due_us=row["due_us"],
        body=row["body"].encode(),
        turn_id=row["turn_id"],
        attempt=row["attempt"],
        failures=row["failures"],
        owner_id=row["owner_id"],
        claimed_us=row["claimed_us"],
        first_us=row["first_us"],
        code=row["code"],
        created_us=row["created_us"],
        finished_us=row["finished_us"],
    )


def _attempt(row: Row) -> OutboxAttempt:
    return OutboxAttempt(
        attempt=row["attempt"],
        outcome=row["outcome"],
        status=row["status"],
        code=row["code"],
        detail=row["detail"],
        started_us=row["started_us"],
        finished_us=row["finished_us"],
    )
