"""What every HTTP handler shares: typed bodies in, `{ok, data}` or `{ok, error}` out."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from actors.clock import Clock, isoformat
from actors.errors import ServiceUnavailable
from gateway.errors import RequestTimeout
from gateway.settings import Settings
from storage.errors import InvalidRequest, PayloadTooLarge, StorageError, StorageFull, WunderError

T = TypeVar("T")

SETTINGS = web.AppKey("settings", Settings)
CLOCK: web.AppKey[Clock] = web.AppKey("clock", Clock)
TRACE_ID = web.RequestKey("trace_id", str)
STARTED = web.RequestKey("started", web.StreamResponse)

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")
_INTERNAL = frozenset({"constraint", "owner_id"})
_DEFAULT_RETRY_AFTER_S = 1.0


async def read_body(request: web.Request, *, max_bytes: int | None = None) -> bytes:
    """The whole body: `PayloadTooLarge` beyond the limit, `RequestTimeout` if it does not arrive in time."""
    settings = request.app[SETTINGS].gateway
    limit = min(max_bytes or settings.max_body_bytes, settings.max_body_bytes)
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(f"the body is larger than {limit} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(settings.request_timeout_s):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limit:
                    raise PayloadTooLarge(f"the body is larger than {limit} bytes")
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {settings.request_timeout_s:g} s") from None
    except web.RequestPayloadError:
        raise InvalidRequest("the body does not match its headers") from None
    return bytes(body)


async def read_json(request: web.Request, type_: type[T], *, max_bytes: int | None = None) -> T:
    """Decode the body as `type_`, whatever content type it claims; unknown fields are ignored."""
    return decode_json(await read_body(request, max_bytes=max_bytes), type_)


def decode_json(body: bytes, type_: type[T]) -> T:
    """Decode JSON text; `InvalidRequest` names the field and what was expected."""
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        message, field = _explain(str(error))
        raise InvalidRequest(message, field=field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("the body is not valid JSON", hint="send a JSON object in UTF-8") from None


def _explain(text: str) -> tuple[str, str | None]:
    """msgspec's message as (message that names the field, the field's path)."""
    at = _AT.search(text)
    path = at["path"] if at else ""
    plain = _AT.sub("", text)
    if missing := _MISSING.search(plain):
        field = f"{path}.{missing['name']}" if path else missing["name"]
        return f"{field}: this field is required", field
    return (f"{path}: {plain}", path) if path else (plain, None)


def json_response(payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Any JSON as a response."""
    body = msgspec.json.encode(payload)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def ok(data: Any, status: int = 200) -> web.Response:
    """`{"ok": true, "data": ...}`."""
    return json_response({"ok": True, "data": data}, status)


def error_object(error: WunderError, trace_id: str, now_us: int) -> dict[str, Any]:
    """The error as it goes over the wire, in a body, a frame or a stream; internals are left out."""
    result: dict[str, Any] = {
        "code": error.code,
        "message": _public_message(error),
        "status": error.status,
        "hint": error.hint,
        "trace_id": trace_id,
        "timestamp": isoformat(now_us),
    }
    if error.field is not None:
        result["field"] = error.field
    if error.detail is not None and (error.status < 500 or isinstance(error, ServiceUnavailable)):
        result["detail"] = {name: value for name, value in error.detail.items() if name not in _INTERNAL}
    return result


def _public_message(error: WunderError) -> str:
    if isinstance(error, StorageFull):
        return "there is no room to store this; reading still works"
    if error.code == "INTERNAL_ERROR":
        return "something went wrong on our side"
    if isinstance(error, StorageError):
        return "the service cannot do this right now; try again"
    return error.message


def error_response(error: WunderError, trace_id: str, now_us: int) -> web.Response:
    """`{"ok": false, "error": {...}}` with `x-error-code`, and `Retry-After` for 429 and 503."""
    headers = {"x-error-code": error.code}
    if error.status in {429, 503}:
        seconds = _DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    body = {"ok": False, "error": error_object(error, trace_id, now_us)}
    response = json_response(body, error.status, headers)
    if error.status in {408, 413}:
        response.force_close()  # the rest of the body is not worth reading
    return response
