"""Settings of the storage layer. Units are in the names; bounds are part of the types."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where data lives and how long a statement may take."""

    url: str = "sqlite:///{data_dir}/wunder.db"
    migrate: Literal["auto", "pre", "all"] = "auto"
    pool_size: Annotated[int, Meta(ge=1, le=100)] = 4
    connect_timeout_s: Seconds = 5.0
    command_timeout_s: Seconds = 5.0
    pool_wait_s: Seconds = 2.0
    slow_statement_ms: Annotated[float, Meta(gt=0)] = 200.0
    events_retention_s: Annotated[float, Meta(ge=60)] = 86_400.0
    outbox_retention_s: Annotated[float, Meta(ge=60)] = 604_800.0
    idempotency_retention_s: Annotated[float, Meta(ge=60)] = 86_400.0
    channel_messages_retention_s: Annotated[float, Meta(ge=604_800)] = 1_209_600.0

    @property
    def migrates_all(self) -> bool:
        """Whether a start also applies the migrations that no process of an older release could stand."""
        return self.migrate == "all" or (self.migrate == "auto" and self.url.startswith("sqlite:"))
