"""How a turn ends in the database, with the webhook and the replies that tell of it: recorded in the same transaction.

The delivery's id is made of the turn, its attempt and its end, so the same end has the same delivery, and a task that
is tried again and ends again has another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from yarl import URL

from actors.channels.replies import replies
from actors.channels.webhook_delivery import WEBHOOK, WebhookDelivery
from actors.clock import isoformat
from actors.events import encode_json
from actors.messages import Webhook
from storage.outbox_records import NewOutboxItem
from storage.records import EventRecord, Fence, MessageRecord, TaskRecord, TerminalStatus
from storage.store import TaskStorage
from storage.turn_writer import Completion


class _Wanted(msgspec.Struct):
    """What of a task's request matters here."""

    webhook: Webhook | None = None


_wanted = msgspec.json.Decoder(_Wanted)


def completion_of(
    task: TaskRecord,
    status: TerminalStatus,
    *,
    now_us: int,
    stop_reason: str,
    answer: str | None = None,
    error: bytes | None = None,
    usage: bytes | None = None,
) -> Completion:
    """The end of a turn, and what is sent because of it."""
    end = Completion(
        turn_id=task.turn_id,
        attempt=task.attempt,
        status=status,
        answer=answer,
        error=error,
        usage=usage,
        stop_reason=stop_reason,
        now_us=now_us,
    )
    webhook = _wanted.decode(task.request).webhook if task.origin == "task" else None
    told = (_delivery(webhook, task, end),) if webhook is not None else ()
    outbox = (*told, *replies(task, end))
    return msgspec.structs.replace(end, outbox=outbox) if outbox else end


async def finish_in_store(
    store: TaskStorage,
    fence: Fence,
    end: Completion,
    messages: Sequence[MessageRecord],
    events: Sequence[EventRecord],
) -> bool:
    """Record the end of a turn whose session stays open."""
    return await store.finish_turn(
        fence,
        end.turn_id,
        end.attempt,
        status=end.status,
        answer=end.answer,
        error=end.error,
        usage=end.usage,
        stop_reason=end.stop_reason,
        messages=messages,
        events=events,
        now_us=end.now_us,
        outbox=end.outbox,
    )


def _delivery(webhook: Webhook, task: TaskRecord, end: Completion) -> NewOutboxItem:
    given = WebhookDelivery(url=webhook.url, secret=webhook.secret, event=msgspec.Raw(_event(task, end)))
    return NewOutboxItem(
        delivery_id=f"msg_{end.turn_id}_{end.attempt}_{end.status}",
        channel=WEBHOOK,
        account=str(URL(webhook.url).origin()),
        peer=task.session_id,
        body=msgspec.json.encode(given),
        turn_id=end.turn_id,
        created_us=end.now_us,
    )


def _event(task: TaskRecord, end: Completion) -> bytes:
    data: dict[str, Any] = {
        "task_id": task.turn_id,
        "session_id": task.session_id,
        "status": end.status,
        "attempt": end.attempt,
        "stop_reason": end.stop_reason,
    }
    if end.answer is not None:
        data["answer"] = end.answer
    for name, value in (("error", end.error), ("usage", end.usage)):
        if value is not None:
            data[name] = msgspec.Raw(value)
    return encode_json({"type": f"task.{end.status}", "timestamp": isoformat(end.now_us), "data": data})
