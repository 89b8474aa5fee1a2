"""Settings of the actors: models, sessions, queue, tools. One frozen object travels to every actor."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from storage.settings import Seconds, StorageSettings

Count = Annotated[int, Meta(ge=1)]
OverflowPolicy = Literal["block_with_timeout", "drop_oldest", "drop_latest"]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the settings tree: immutable, by keyword, no unknown keys."""


class ModelSettings(Section, frozen=True):
    """One entry of `llm.models`."""

    provider: Literal["scripted", "openai"] = "scripted"
    base_url: str = ""
    api_key: str = ""
    model: str = ""
    timeout_s: Seconds = 60.0
    first_token_timeout_s: Seconds = 30.0
    retry: Annotated[int, Meta(ge=0, le=10)] = 2
    max_rounds: Annotated[int, Meta(ge=1, le=100)] = 12
    max_context: Annotated[int, Meta(ge=256)] = 128_000
    max_output: Annotated[int, Meta(ge=1)] = 4096
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    scripted_delay_ms: Annotated[float, Meta(ge=0)] = 20.0


class AgentSettings(Section, frozen=True):
    """One entry of `llm.agents`: a named system prompt with a model and tools; empty `tools` means all."""

    system_prompt: str = ""
    model: str = ""
    tools: tuple[str, ...] = ()


class LlmSettings(Section, frozen=True):
    """Which models exist and which one answers by default."""

    default: str = "scripted"
    models: dict[str, ModelSettings] = msgspec.field(default_factory=lambda: {"scripted": ModelSettings()})
    agents: dict[str, AgentSettings] = msgspec.field(default_factory=dict)
    system_prompt: str = "You are a helpful assistant."


class EventWriterSettings(Section, frozen=True):
    """How events reach the store behind the live stream."""

    batch_size: Count = 500
    flush_interval_ms: Annotated[float, Meta(gt=0)] = 100.0
    max_pending: Count = 20_000
    delta_overflow: OverflowPolicy = "drop_oldest"
    final_overflow: Literal["block_with_timeout"] = "block_with_timeout"
    block_timeout_s: Seconds = 10.0


class SessionsSettings(Section, frozen=True):
    """Session actors, their permits and their buffers."""

    max_actors_per_node: Annotated[int, Meta(ge=0)] = 0
    actor_resource: Annotated[str, Meta(pattern=r"^[a-z_0-9]{0,64}$")] = ""
    sessions_per_actor: Count = 50
    spare_actors: Annotated[int, Meta(ge=0, le=16)] = 1
    max_active: Count = 1000
    max_active_per_user: Count = 100
    permit_linger_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    max_queued_per_session: Count = 100
    idle_s: Seconds = 300.0
    lease_s: Seconds = 15.0
    lease_renew_s: Seconds = 4.0
    lease_stop_s: Seconds = 10.0
    sweep_s: Seconds = 2.0
    max_crashes: Count = 3
    seq_block: Annotated[int, Meta(ge=64)] = 4096
    line_interval_ms: Annotated[float, Meta(ge=0)] = 10.0
    line_max_bytes: Annotated[int, Meta(ge=65_536)] = 8_388_608
    buffer_events: Annotated[int, Meta(ge=16)] = 2048
    buffer_bytes: Annotated[int, Meta(ge=16_384)] = 1_048_576
    max_history_messages: Count = 400
    drain_grace_s: Seconds = 30.0
    event_writer: EventWriterSettings = EventWriterSettings()


class ToolsSettings(Section, frozen=True):
    """Limits of the built-in tools and of outbound requests."""

    timeout_s: Seconds = 30.0
    max_result_bytes: Annotated[int, Meta(ge=256)] = 16_384
    http_allow_hosts: tuple[str, ...] = ()
    http_public: bool = True
    http_max_bytes: Annotated[int, Meta(ge=1024)] = 1_048_576
    http_timeout_s: Seconds = 15.0


class AgentQueueSettings(Section, frozen=True):
    """Background tasks: the pools that run them, their retries, and how many may wait."""

    enabled: bool = True
    max_workers: Annotated[int, Meta(ge=1, le=10_000)] = 32
    claim_batch: Annotated[int, Meta(ge=1, le=1000)] = 32
    poll_interval_ms: Annotated[float, Meta(ge=100, le=600_000)] = 2000.0
    lease_s: Seconds = 15.0
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    retry_base_ms: Annotated[float, Meta(gt=0, le=3_600_000)] = 1000.0
    retry_max_ms: Annotated[float, Meta(gt=0, le=86_400_000)] = 60_000.0
    task_ttl_s: Annotated[float, Meta(ge=0)] = 0.0
    max_queued: Count = 20_000
    max_queued_per_user: Count = 10_000
    max_children: Annotated[int, Meta(ge=1, le=1000)] = 32
    max_child_depth: Annotated[int, Meta(ge=0, le=10)] = 2


class SchedulesSettings(Section, frozen=True):
    """Tasks that come again."""

    max_per_user: Annotated[int, Meta(ge=1, le=100_000)] = 100
    max_task_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    grace_s: Annotated[float, Meta(ge=1, le=86_400)] = 60.0
    poll_interval_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    retry_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    history_retention_s: Annotated[float, Meta(ge=60)] = 2_592_000.0


class ObservabilitySettings(Section, frozen=True):
    """Logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"


class ActorSettings(Section, frozen=True):
    """What every actor is started with."""

    storage: StorageSettings = StorageSettings()
    llm: LlmSettings = LlmSettings()
    sessions: SessionsSettings = SessionsSettings()
    agent_queue: AgentQueueSettings = AgentQueueSettings()
    schedules: SchedulesSettings = SchedulesSettings()
    tools: ToolsSettings = ToolsSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
