"""Wires the gateway: the one place that builds its objects."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import msgspec
from aiohttp import web

from actors.clock import Clock, SystemClock
from actors.errors import ServiceUnavailable, WunderError
from actors.handles import DirectoryHandle, Reach
from actors.logs import configure_logs, log
from actors.loop import Loop
from actors.messages import Batch, Describe, Drain, TokenEnded, decode_command, encode
from actors.owners import Owners
from actors.replies import Description, Done, Reply, to_failed
from actors.task_intake import TaskIntake
from gateway.accounts import Accounts
from gateway.app import SocketHandlers, create_app
from gateway.auth import Auth
from gateway.channel_services import ChannelServices
from gateway.connections import Connections
from gateway.health import Health
from gateway.http_admin import AdminHandlers
from gateway.http_chat import ChatHandlers
from gateway.http_outbox import OutboxHandlers
from gateway.http_schedules import ScheduleHandlers
from gateway.http_tasks import TaskHandlers
from gateway.lobby import Lobby
from gateway.login_throttle import LoginThrottle
from gateway.password_rules import PasswordRules, load_common_passwords
from gateway.passwords import PasswordHasher
from gateway.requests import RequestServices
from gateway.schedules import Schedules
from gateway.settings import Settings, registration_open
from gateway.tasks import Tasks
from gateway.topics import Topics
from gateway.turns import Turns
from storage.factory import create_store
from storage.store import AsyncStorageBackend

_BACKLOG = 4096
_REGISTER_S = 5.0
_DONE = encode(Done())


class GatewayService:
    """One gateway: the web server, and what the other processes may tell it."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncStorageBackend,
        directory: DirectoryHandle,
        reach: Reach,
        *,
        name: str,
        node_id: str,
    ) -> None:
        clock = SystemClock()
        self._settings = settings
        self._name = name
        self._node_id = node_id
        self._store = store
        self._directory = directory
        self._hasher = PasswordHasher(settings.auth)
        self.auth = Auth(store, settings, clock)
        self.accounts = _accounts(settings, store, self.auth, self._hasher, clock)
        owners = Owners(directory, reach, clock, timeout_s=settings.gateway.owner_timeout_s)
        self.topics = Topics(name, owners, reach, store, clock, topic_bytes=settings.gateway.topic_buffer_bytes)
        self._turns = Turns(settings, owners, self.topics, clock, gateway=name)
        self.connections = Connections(settings.gateway, self.auth, revalidate_s=settings.auth.revalidate_s)
        self._health = self._make_health(clock, reach)
        intake = TaskIntake(settings.agent_queue, store, clock, directory, owners)
        self._tasks_service = Tasks(settings, store, clock, intake, self._turns)
        self._schedules = Schedules(settings, store, clock, reach, intake, self._turns)
        self._channels = ChannelServices(
            settings, store, clock, directory, self.auth, intake, self._turns, self._health.metrics
        )
        self.app = self._create_app(clock, owners)
        self._lobby = Lobby(settings.gateway, self.auth.networks, clock)
        self.app.middlewares.insert(0, self._lobby.middleware())
        self.address = ""
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._register = Loop("register-gateway", self._register_once, interval_s=_REGISTER_S)
        self._sweep = Loop("auth-sweep", self._sweep_once, interval_s=60.0)
        self.auth.on_ended_here(self._token_ended)

    def _make_health(self, clock: Clock, reach: Reach) -> Health:
        return Health(
            gateway=self._name,
            node_id=self._node_id,
            store=self._store,
            auth=self.auth,
            clock=clock,
            connections=self.connections,
            topics=self.topics,
            hasher=self._hasher,
            directory=self._directory,
            reach=reach,
        )

    def _create_app(self, clock: Clock, owners: Owners) -> web.Application:
        settings, store = self._settings, self._store
        services = RequestServices(self.auth, self.topics, self._turns, self.connections, clock)
        return create_app(
            settings,
            clock,
            self.auth,
            self.accounts,
            self._health,
            ChatHandlers(settings, store, clock, self.auth, self.connections, self.topics, self._turns, owners),
            TaskHandlers(store, self.auth, self._tasks_service, self._turns, self._channels.replies),
            ScheduleHandlers(store, self.auth, self._schedules),
            OutboxHandlers(store, self.auth, self._directory, clock),
            SocketHandlers(settings, services, self.auth, self.connections),
            AdminHandlers(self.auth, self._directory),
            self._channels,
        )

    async def start(self) -> None:
        """Listen; `ServiceUnavailable` when the address is taken."""
        await self._store.open()
        self.topics.start()
        self.connections.start()
        self._health.start()
        server = self._settings.server
        self._runner = web.AppRunner(
            self.app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=self._settings.gateway.keep_alive_s,
            lingering_time=1.0,
        )
        await self._runner.setup()
        if self._runner.server is not None:
            self._lobby.start(self._runner.server)
        site = web.TCPSite(self._runner, server.host, server.port, backlog=_BACKLOG, ssl_context=tls(self._settings))
        try:
            await site.start()
        except OSError as error:
            raise ServiceUnavailable(f"cannot listen on {server.host}:{server.port}: {error.strerror}") from None
        port = self._runner.addresses[0][1]
        self.address = f"{'https' if server.tls_cert else 'http'}://{server.host}:{port}"
        self._register.start()
        self._sweep.start()
        log.info("gateway_ready", gateway=self._name, address=self.address)

    async def stop(self) -> None:
        """Close every connection, then the server and the store."""
        self.connections.drain()
        await self._register.stop()
        await self._sweep.stop()
        await self.topics.stop()
        await self._lobby.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.connections.stop()
        await self._health.stop()
        for task in list(self._tasks):
            task.cancel()
        await self._channels.close()
        await self._schedules.close()
        await self._tasks_service.close()
        await self._turns.close()
        self._hasher.close()
        await self._store.close()

    async def handle(self, data: bytes) -> bytes:
        """A batch from a line, or a command."""
        try:
            command = decode_command(data)
            if isinstance(command, Batch):
                self.topics.take(command)
                return _DONE
            return encode(self._dispatch(command))
        except WunderError as error:
            return encode(to_failed(error))

    def _dispatch(self, command: object) -> Reply:
        match command:
            case TokenEnded():
                for token_hash in command.token_hashes:
                    self.auth.forget(token_hash)
                return Done()
            case Drain():
                self.connections.drain()
                return Done()
            case Describe():
                gauges = {
                    "connections": float(len(self.connections)),
                    "topics": float(len(self.topics)),
                    "subscriptions": float(self.topics.subscriptions),
                }
                return Description(gauges=gauges, info={"address": self.address})
            case _:
                raise WunderError(f"a gateway does not take {type(command).__name__}")

    async def _register_once(self) -> None:
        await self._directory.register_gateway(self._name, self._node_id, self.address)

    async def _sweep_once(self) -> None:
        self.auth.sweep()

    def _token_ended(self, token_hash: str) -> None:
        async def tell() -> None:
            with contextlib.suppress(WunderError):
                await self._directory.token_ended((token_hash,))

        task = asyncio.create_task(tell(), name="token-ended")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _accounts(
    settings: Settings, store: AsyncStorageBackend, auth: Auth, hasher: PasswordHasher, clock: Clock
) -> Accounts:
    return Accounts(
        store=store,
        auth=auth,
        hasher=hasher,
        throttle=LoginThrottle(settings.auth, clock),
        rules=PasswordRules(min_length=settings.auth.password_min_length, common=load_common_passwords()),
        clock=clock,
        registration_open=registration_open(settings),
    )


def tls(settings: Settings) -> ssl.SSLContext | None:
    """The server's certificate, if it has one."""
    server = settings.server
    if not server.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.tls_cert, server.tls_key or None)
    return context


def create_gateway(name: str, node_id: str, data: bytes) -> GatewayService:
    """The factory that the `Gateway` actor names."""
    from actors.cluster.reach import RayReach  # noqa: PLC0415 - only inside a Ray process
    from actors.cluster.services import DIRECTORY  # noqa: PLC0415

    settings = msgspec.msgpack.decode(data, type=Settings)
    configure_logs(settings.observability)
    reach = RayReach()
    directory = DirectoryHandle(reach.actor(DIRECTORY))
    return GatewayService(settings, create_store(settings.storage), directory, reach, name=name, node_id=node_id)
