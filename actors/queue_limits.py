"""Whether the task queue takes another task."""

from __future__ import annotations

from typing import Any

from actors.errors import ServiceUnavailable, UserQuotaExceeded, WunderError
from actors.settings import AgentQueueSettings
from storage.records import QueueDepth, UserId
from storage.store import AsyncStorageBackend

_RETRY_AFTER_S = 5.0


async def queue_depth(store: AsyncStorageBackend, settings: AgentQueueSettings, users: list[UserId]) -> QueueDepth:
    """How full the queue is, counted as far as its limits need it."""
    return await store.queue_depth(users, most=max(settings.max_queued, settings.max_queued_per_user) + 1)


def refusal(settings: AgentQueueSettings, user_id: UserId, depth: QueueDepth) -> WunderError | None:
    """The error for one more task of this user; None if there is room."""
    queued = depth.by_user[user_id]
    if queued >= settings.max_queued_per_user:
        detail: dict[str, Any] = {"reason": "user_queue_full", "queued": queued}
        return UserQuotaExceeded("too many of this user's tasks wait", detail=detail, retry_after_s=_RETRY_AFTER_S)
    if depth.total >= settings.max_queued:
        detail = {"reason": "queue_full", "queued": depth.total}
        return ServiceUnavailable("the task queue is full", detail=detail, retry_after_s=_RETRY_AFTER_S)
    return None
