"""Every setting of Wunder, as one frozen tree. Loading and checking: gateway/settings_loader.py."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from actors.channels.settings import ChannelsSettings, OutboxProcessSettings
from actors.settings import (
    ActorSettings,
    AgentQueueSettings,
    Count,
    LlmSettings,
    ObservabilitySettings,
    SchedulesSettings,
    Section,
    SessionsSettings,
    ToolsSettings,
)
from storage.settings import Seconds, StorageSettings

Port = Annotated[int, Meta(ge=0, le=65_535)]


class ServerSettings(Section, frozen=True):
    """Where the gateway listens and where local files live."""

    host: str = "127.0.0.1"
    port: Port = 18000
    data_dir: str = "data"
    behind_proxy: bool = False
    trusted_proxies: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    ray_address: str = ""
    leave_actors: bool = False
    dashboard_port: Port = 8265


class GatewaySettings(Section, frozen=True):
    """Limits of connections and requests."""

    allowed_origins: tuple[str, ...] = ()
    max_message_bytes: Annotated[int, Meta(ge=1024)] = 524_288
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 1_048_576
    max_connections: Count = 20_000
    max_connections_per_user: Count = 5_000
    max_connections_per_address: Count = 5_000
    max_subscriptions_per_connection: Count = 256
    messages_per_minute: Annotated[float, Meta(gt=0)] = 6000.0
    message_burst: Count = 2000
    connection_queue_bytes: Annotated[int, Meta(ge=16_384)] = 262_144
    socket_send_buffer_bytes: Annotated[int, Meta(ge=4096)] = 131_072
    topic_buffer_bytes: Annotated[int, Meta(ge=4096)] = 262_144
    heartbeat_s: Seconds = 20.0
    sse_heartbeat_s: Seconds = 15.0
    auth_timeout_s: Seconds = 10.0
    keep_alive_s: Seconds = 75.0
    slow_client_timeout_s: Seconds = 30.0
    request_timeout_s: Seconds = 30.0
    owner_timeout_s: Seconds = 12.0


class AuthSettings(Section, frozen=True):
    """Sign-in. `registration: ""` means open if only this machine can connect, closed otherwise."""

    registration: Literal["", "open", "closed"] = ""
    token_ttl_s: Annotated[float, Meta(ge=60)] = 2_592_000.0
    ticket_ttl_s: Annotated[float, Meta(ge=1, le=300)] = 30.0
    revalidate_s: Seconds = 60.0
    password_min_length: Annotated[int, Meta(ge=8, le=128)] = 8
    hash_memory_kib: Annotated[int, Meta(ge=8)] = 47_104
    hash_time_cost: Annotated[int, Meta(ge=1)] = 1
    hash_parallelism: Annotated[int, Meta(ge=1)] = 1
    hash_workers: Annotated[int, Meta(ge=1, le=64)] = 2
    hash_queue: Count = 64
    login_rate_per_minute: Annotated[float, Meta(gt=0)] = 20.0
    login_burst: Count = 10
    network_rate_per_minute: Annotated[float, Meta(gt=0)] = 300.0
    network_burst: Count = 100


class SecuritySettings(Section, frozen=True):
    """Secrets and the choices that weaken or widen access."""

    api_key: str = ""
    secrets_keys: tuple[str, ...] = ()
    allow_query_token: bool = False
    bootstrap_admin_password: str = ""


class FeaturesSettings(Section, frozen=True):
    """Switches have no settings in this version."""


class Settings(Section, frozen=True):
    """The whole of config/wunder.yaml."""

    server: ServerSettings = ServerSettings()
    gateway: GatewaySettings = GatewaySettings()
    auth: AuthSettings = AuthSettings()
    security: SecuritySettings = SecuritySettings()
    llm: LlmSettings = LlmSettings()
    agent_queue: AgentQueueSettings = AgentQueueSettings()
    schedules: SchedulesSettings = SchedulesSettings()
    sessions: SessionsSettings = SessionsSettings()
    storage: StorageSettings = StorageSettings()
    tools: ToolsSettings = ToolsSettings()
    channels: ChannelsSettings = ChannelsSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    features: FeaturesSettings = FeaturesSettings()

    def for_actors(self) -> ActorSettings:
        """The part that travels to session actors: nothing of the gateway's secrets."""
        return ActorSettings(
            storage=self.storage,
            llm=self.llm,
            sessions=self.sessions,
            agent_queue=self.agent_queue,
            schedules=self.schedules,
            tools=self.tools,
            observability=self.observability,
        )

    def for_outbox(self) -> OutboxProcessSettings:
        """The part that travels to outboxes: with the secrets that they send with."""
        return OutboxProcessSettings(
            actors=self.for_actors(), channels=self.channels, secrets_keys=self.security.secrets_keys
        )


def is_loopback(host: str) -> bool:
    """Whether a listening address can be reached from this machine only."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def is_local(settings: Settings) -> bool:
    """Whether only this machine can reach the gateway: a proxy on it lets others in."""
    return is_loopback(settings.server.host) and not settings.server.behind_proxy


def registration_open(settings: Settings) -> bool:
    """Whether strangers may create accounts."""
    if settings.auth.registration:
        return settings.auth.registration == "open"
    return is_local(settings)
