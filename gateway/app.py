"""The aiohttp application: routes to handlers."""

from __future__ import annotations

from importlib.metadata import version

import msgspec
from aiohttp import web

from actors.clock import Clock
from actors.errors import WunderError
from gateway.accounts import Accounts
from gateway.auth import AUTH, Auth
from gateway.channel_services import ChannelServices
from gateway.connections import Connections
from gateway.errors import AuthRequired
from gateway.health import Health
from gateway.http_admin import AdminHandlers
from gateway.http_auth import add_auth_routes
from gateway.http_chat import ChatHandlers
from gateway.http_common import CLOCK, SETTINGS, TRACE_ID
from gateway.http_console import ConsoleHandlers, add_console_routes
from gateway.http_outbox import OutboxHandlers
from gateway.http_schedules import ScheduleHandlers
from gateway.http_tasks import TaskHandlers
from gateway.middleware import add_middlewares
from gateway.openapi import document
from gateway.protocol import CloseCode
from gateway.requests import Requests, RequestServices
from gateway.settings import Settings
from gateway.websocket import WebSocketConnection

_TASK = "/wunder/tasks/{task_id:[A-Za-z0-9_.:@-]{1,128}}"
_SCHEDULE = "/wunder/cron/{schedule_id:[A-Za-z0-9_.:@-]{1,128}}"
_DELIVERY = "/wunder/admin/outbox/{delivery_id:[A-Za-z0-9_.:@-]{1,256}}"
_SESSION = "/wunder/chat/sessions/{session_id:[A-Za-z0-9_.:@-]{1,128}}"


class SocketHandlers:
    """Opens WebSockets."""

    def __init__(self, settings: Settings, services: RequestServices, auth: Auth, connections: Connections) -> None:
        self._settings = settings.gateway
        self._services = services
        self._auth = auth
        self._connections = connections

    async def open(self, request: web.Request) -> web.WebSocketResponse:
        """GET /wunder/chat/ws and /wunder/ws."""
        self._auth.check_origin(request)
        principal = await self._auth.authenticate(request)
        network = self._auth.networks.network(request)
        connection = WebSocketConnection(principal, network, self._settings, self._services.clock, request[TRACE_ID])
        requests = Requests(
            self._services,
            principal,
            connection.queue,
            connection.send_error,
            limit=self._settings.max_subscriptions_per_connection,
        )
        self._refuse_if_full(connection)
        self._connections.add(connection)
        try:
            if not await self._auth.revalidate(principal):
                raise AuthRequired("the credential has just ended")
            return await connection.run(request, requests)
        finally:
            self._connections.remove(connection)

    def _refuse_if_full(self, connection: WebSocketConnection) -> None:
        if self._connections.draining:
            connection.close(CloseCode.DRAINING, "draining")
        try:
            self._connections.check_room(connection.principal, connection.network)
        except WunderError:
            connection.close(CloseCode.TOO_MANY, "too many connections")


def create_app(
    settings: Settings,
    clock: Clock,
    auth: Auth,
    accounts: Accounts,
    health: Health,
    chat: ChatHandlers,
    tasks: TaskHandlers,
    schedules: ScheduleHandlers,
    outbox: OutboxHandlers,
    sockets: SocketHandlers,
    admin: AdminHandlers,
    channels: ChannelServices,
) -> web.Application:
    """Everything wired to its path."""
    app = web.Application(client_max_size=settings.gateway.max_body_bytes)
    app[SETTINGS] = settings
    app[CLOCK] = clock
    app[AUTH] = auth
    add_middlewares(app, health.observe)
    add_auth_routes(app, auth, accounts)
    add_console_routes(app, ConsoleHandlers())
    router = app.router
    router.add_post("/wunder", chat.ask)
    router.add_get("/wunder/chat/ws", sockets.open)
    router.add_get("/wunder/ws", sockets.open)
    router.add_post("/wunder/chat/sessions", chat.create_session)
    router.add_get("/wunder/chat/sessions", chat.list_sessions)
    router.add_get(_SESSION, chat.get_session)
    router.add_patch(_SESSION, chat.update_session)
    router.add_delete(_SESSION, chat.delete_session)
    router.add_post(f"{_SESSION}/messages", chat.post_message)
    router.add_get(f"{_SESSION}/resume", chat.resume, allow_head=False)  # a stream has no answer to HEAD
    router.add_get(f"{_SESSION}/events", chat.events)
    router.add_post(f"{_SESSION}/cancel", chat.cancel)
    router.add_post("/wunder/tasks", tasks.submit)
    router.add_get("/wunder/tasks", tasks.list)
    router.add_get(_TASK, tasks.inspect)
    router.add_delete(_TASK, tasks.cancel)
    router.add_post(f"{_TASK}/retry", tasks.retry)
    router.add_post(f"{_TASK}/answer", tasks.answer)
    _add_schedule_routes(app, schedules)
    channels.add_routes(app)
    _add_operators_routes(app, health, admin)
    _add_outbox_routes(app, outbox)
    return app


def _add_operators_routes(app: web.Application, health: Health, admin: AdminHandlers) -> None:
    router = app.router
    router.add_get("/wunder/admin/summary", health.summary)
    router.add_post("/wunder/admin/nodes/{node_id}/drain", admin.drain)
    router.add_get("/healthz", health.healthz)
    router.add_get("/readyz", health.readyz)
    router.add_get("/metrics", health.prometheus)
    router.add_get("/openapi.json", _openapi)


def _add_schedule_routes(app: web.Application, schedules: ScheduleHandlers) -> None:
    router = app.router
    router.add_post("/wunder/cron", schedules.create)
    router.add_get("/wunder/cron", schedules.list)
    router.add_get(_SCHEDULE, schedules.inspect)
    router.add_patch(_SCHEDULE, schedules.update)
    router.add_delete(_SCHEDULE, schedules.delete)
    router.add_post(f"{_SCHEDULE}/run", schedules.run)
    router.add_get(f"{_SCHEDULE}/history", schedules.history)


def _add_outbox_routes(app: web.Application, outbox: OutboxHandlers) -> None:
    router = app.router
    router.add_get("/wunder/admin/outbox", outbox.list)
    router.add_post("/wunder/admin/outbox/retry", outbox.retry_many)
    router.add_post("/wunder/admin/outbox/drop", outbox.drop_many)
    router.add_get(_DELIVERY, outbox.inspect)
    router.add_post(f"{_DELIVERY}/retry", outbox.retry_one)
    router.add_post(f"{_DELIVERY}/drop", outbox.drop_one)


async def _openapi(request: web.Request) -> web.Response:
    body = msgspec.json.encode(document(request.app, version("wunder")))
    return web.Response(body=body, content_type="application/json")
