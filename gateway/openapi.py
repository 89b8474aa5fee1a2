"""OpenAPI 3.1, made from the routes that are served and the types that decode their bodies."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from gateway.errors import AuthRequired, MethodNotAllowed, PermissionDenied, RateLimited, RequestTimeout
from gateway.http_auth import LoginBody, PasswordBody, ProfileBody, RegisterBody
from gateway.http_channel_admin import ChannelAccountBody
from gateway.protocol import (
    PROTOCOL_VERSION,
    AnswerBody,
    AskBody,
    CancelBody,
    CreateSessionBody,
    DrainBody,
    MessageBody,
    OutboxBody,
    ScheduleBody,
    TaskBody,
    UpdateScheduleBody,
    UpdateSessionBody,
)
from storage.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge

_STREAM = "text/event-stream"
_PARAMETER = re.compile(r"{(\w+)}")

_ANSWER = ("POST", "/wunder/tasks/{task_id}/answer")
BODIES: dict[tuple[str, str], type[msgspec.Struct]] = {
    ("POST", "/wunder"): AskBody,
    ("POST", "/wunder/tasks"): TaskBody,
    _ANSWER: AnswerBody,
    ("POST", "/wunder/cron"): ScheduleBody,
    ("PATCH", "/wunder/cron/{schedule_id}"): UpdateScheduleBody,
    ("POST", "/wunder/chat/sessions"): CreateSessionBody,
    ("PATCH", "/wunder/chat/sessions/{session_id}"): UpdateSessionBody,
    ("POST", "/wunder/chat/sessions/{session_id}/messages"): MessageBody,
    ("POST", "/wunder/chat/sessions/{session_id}/cancel"): CancelBody,
    ("PUT", "/wunder/admin/channels/{account}"): ChannelAccountBody,
    ("POST", "/wunder/auth/register"): RegisterBody,
    ("POST", "/wunder/auth/login"): LoginBody,
    ("POST", "/wunder/auth/password"): PasswordBody,
    ("PATCH", "/wunder/auth/me"): ProfileBody,
    ("POST", "/wunder/admin/nodes/{node_id}/drain"): DrainBody,
    ("POST", "/wunder/admin/outbox/retry"): OutboxBody,
    ("POST", "/wunder/admin/outbox/drop"): OutboxBody,
}
SUMMARIES: dict[tuple[str, str], str] = {
    ("POST", "/wunder"): "Ask a question; the answer streams, or comes as JSON with stream=false",
    ("POST", "/wunder/tasks"): "Queue a task, to be run in the background",
    ("GET", "/wunder/tasks"): "List the caller's tasks, newest first",
    ("GET", "/wunder/tasks/{task_id}"): "A task with its attempts",
    ("DELETE", "/wunder/tasks/{task_id}"): "Cancel a task; the answer is a receipt",
    ("POST", "/wunder/tasks/{task_id}/retry"): "Queue a dead or failed task again",
    _ANSWER: "Answer what a turn has asked",
    ("POST", "/wunder/cron"): "Create a schedule: a task at a time, every so often, or by a cron expression",
    ("GET", "/wunder/cron"): "List the caller's schedules, newest first",
    ("GET", "/wunder/cron/{schedule_id}"): "A schedule with its next due times",
    ("PATCH", "/wunder/cron/{schedule_id}"): "Change, pause or resume a schedule",
    ("DELETE", "/wunder/cron/{schedule_id}"): "Delete a schedule and its history; its tasks stay",
    ("POST", "/wunder/cron/{schedule_id}/run"): "Queue a task of a schedule now, besides its due times",
    ("GET", "/wunder/cron/{schedule_id}/history"): "What became of each due time, newest first",
    ("POST", "/wunder/chat/sessions"): "Create a session",
    ("GET", "/wunder/chat/sessions"): "List the caller's sessions, newest first",
    ("GET", "/wunder/chat/sessions/{session_id}"): "A session and its newest messages",
    ("PATCH", "/wunder/chat/sessions/{session_id}"): "Rename or archive a session",
    ("DELETE", "/wunder/chat/sessions/{session_id}"): "Delete a session and everything of it",
    ("POST", "/wunder/chat/sessions/{session_id}/messages"): "Send a message; like POST /wunder",
    ("GET", "/wunder/chat/sessions/{session_id}/resume"): "Stream from a cursor until the turn ends",
    ("GET", "/wunder/chat/sessions/{session_id}/events"): "A page of stored events",
    ("POST", "/wunder/chat/sessions/{session_id}/cancel"): "Cancel a turn; the answer is a receipt",
    ("GET", "/wunder/chat/ws"): "WebSocket of a user",
    ("GET", "/wunder/ws"): "WebSocket of an API key",
    ("GET", "/wunder/admin/summary"): "Nodes, gateways, actors, pools, permits and queues",
    ("POST", "/wunder/admin/nodes/{node_id}/drain"): "Take a node out of service, or back",
    ("GET", "/wunder/admin/outbox"): "List deliveries, newest first",
    ("POST", "/wunder/admin/outbox/retry"): "Send deliveries again",
    ("POST", "/wunder/admin/outbox/drop"): "Drop deliveries that wait or are dead",
    ("GET", "/wunder/admin/outbox/{delivery_id}"): "A delivery with its attempts",
    ("POST", "/wunder/admin/outbox/{delivery_id}/retry"): "Send a delivery again, or at once",
    ("POST", "/wunder/admin/outbox/{delivery_id}/drop"): "Drop a delivery that waits or is dead",
    ("POST", "/wunder/channel/{channel}/webhook"): "What a provider sends to the channel's only account",
    ("GET", "/wunder/channel/{channel}/webhook"): "A provider checks the URL of the channel's only account",
    ("POST", "/wunder/channel/{channel}/webhook/{account}"): "What a provider sends to an account; it signs the body",
    ("GET", "/wunder/channel/{channel}/webhook/{account}"): "A provider checks the URL of an account",
    ("GET", "/wunder/admin/channels"): "The accounts of channels, without their secrets",
    ("PUT", "/wunder/admin/channels/{account}"): "Add or replace an account; its secrets are kept encrypted",
    ("DELETE", "/wunder/admin/channels/{account}"): "Remove an account",
    ("POST", "/wunder/admin/channels/{account}/test"): "Try an account's credentials at its provider",
    ("POST", "/wunder/auth/register"): "Create an account and sign in",
    ("POST", "/wunder/auth/login"): "Sign in",
    ("POST", "/wunder/auth/logout"): "End the token of this request",
    ("POST", "/wunder/auth/password"): "Change the password and end the other tokens",
    ("POST", "/wunder/auth/ticket"): "A single-use ticket for a browser's WebSocket or EventSource",
    ("GET", "/wunder/auth/me"): "Who am I",
    ("PATCH", "/wunder/auth/me"): "Change the profile",
    ("GET", "/healthz"): "This process answers",
    ("GET", "/readyz"): "This gateway can serve",
    ("GET", "/metrics"): "Prometheus metrics",
    ("GET", "/openapi.json"): "This document",
    ("GET", "/"): "The console",
    ("GET", "/console"): "The console",
    ("GET", "/console/{path}"): "A file of the console",
}
_CONSOLE = frozenset({"/", "/console"})
_PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/console/{path}"}) | _CONSOLE
_SIGNED = frozenset({"/wunder/channel/{channel}/webhook", "/wunder/channel/{channel}/webhook/{account}"})
_OPEN = frozenset({"/wunder/auth/register", "/wunder/auth/login"}) | _SIGNED
_QUEUED = "The task is queued"
_ACCEPTED = {
    ("POST", "/wunder/tasks"): _QUEUED,
    ("POST", "/wunder/tasks/{task_id}/retry"): _QUEUED,
    _ANSWER: _QUEUED,
    ("POST", "/wunder/cron/{schedule_id}/run"): _QUEUED,
    ("POST", "/wunder/admin/nodes/{node_id}/drain"): "Nothing is placed there any more; what is there is handed over",
}
_CREATED = frozenset({("POST", "/wunder/chat/sessions"), ("POST", "/wunder/cron")})
_SOCKETS = frozenset({"/wunder/chat/ws", "/wunder/ws"})
_STREAMS = frozenset(
    {
        "/wunder",
        "/wunder/chat/sessions/{session_id}/messages",
        "/wunder/chat/sessions/{session_id}/resume",
    }
)
_ERRORS = (
    InvalidRequest,
    AuthRequired,
    PermissionDenied,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PayloadTooLarge,
    RateLimited,
)


def document(app: web.Application, version: str) -> dict[str, Any]:
    """The whole document for what `app` serves."""
    types = sorted(set(BODIES.values()), key=lambda t: t.__name__)
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas["Error"] = _error_schema()
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        resource = route.resource
        if resource is None or route.method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            continue
        paths.setdefault(resource.canonical, {})[route.method.lower()] = _operation(route.method, resource.canonical)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wunder",
            "version": version,
            "description": f"Agent backend. Wire protocol version {PROTOCOL_VERSION}.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(method: str, path: str) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if path in _STREAMS:
        content[_STREAM] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "summary": SUMMARIES[(method, path)],
        "operationId": f"{method.lower()}_{re.sub(r'[^a-z]+', '_', path).strip('_')}".rstrip("_"),
        "responses": {
            **_successes(method, path, content),
            **{str(error.status): _error_response(error.__doc__ or "") for error in _ERRORS},
        },
        "security": [] if path in _PUBLIC | _OPEN else [{"token": []}, {"apiKey": []}],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    if parameters:
        operation["parameters"] = parameters
    body = BODIES.get((method, path))
    if body is not None:
        reference = {"$ref": f"#/components/schemas/{body.__name__}"}
        operation["requestBody"] = {"content": {"application/json": {"schema": reference}}}
    return operation


def _successes(method: str, path: str, content: dict[str, Any]) -> dict[str, Any]:
    if path in _SOCKETS:
        return {"101": {"description": "The WebSocket is open"}}
    if (method, path) in _CREATED:
        return {"201": {"description": "Created", "content": content}}
    if (method, path) in _ACCEPTED:
        return {"202": {"description": _ACCEPTED[(method, path)], "content": content}}
    if path in _CONSOLE:
        return {"302": {"description": "It is at /console/"}}
    done = {"200": {"description": "Done", "content": content}}
    if method == "POST" and path in _STREAMS:
        queued = {"application/json": {"schema": {"type": "object"}}}
        done["202"] = {"description": "The turn waits", "content": queued}
    return done


def _error_response(description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Error"}
    return {
        "description": description.partition("\n")[0],
        "content": {"application/json": {"schema": reference}},
    }


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    properties = {
        "code": text,
        "message": text,
        "status": {"type": "integer"},
        "hint": {"type": ["string", "null"]},
        "trace_id": text,
        "timestamp": text,
    }
    error = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "object",
        "properties": {"ok": {"const": False}, "error": error},
        "required": ["ok", "error"],
    }
