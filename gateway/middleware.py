"""What happens to every request and response: trace id, origin, errors, security headers, CORS, metrics."""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from actors.clock import Clock
from actors.logs import log
from gateway.auth import AUTH
from gateway.errors import MethodNotAllowed, PermissionDenied
from gateway.http_common import CLOCK, STARTED, TRACE_ID, error_response
from storage.errors import InvalidRequest, NotFound, PayloadTooLarge, WunderError

ObserveRequest = Callable[[str, str, str, float], None]

_TRACE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_ALLOW_HEADERS = "authorization, content-type, last-event-id, x-api-key, x-trace-id"
_EXPOSE_HEADERS = "x-trace-id, x-error-code, retry-after"


def add_middlewares(app: web.Application, observe: ObserveRequest | None = None) -> None:
    """Install everything; `app` has SETTINGS, CLOCK and AUTH by the time it starts.

    `observe(route, method, status_class, seconds)` is told of every request: the route's template or
    "unmatched", a known method or "OTHER", "2xx" and so on ("aborted" if the client went away).
    """
    app.middlewares.append(_make_outer(observe or _observe_nothing))
    app.middlewares.append(errors)
    app.middlewares.append(origins)
    app.on_response_prepare.append(_add_headers)


def _make_outer(observe: ObserveRequest) -> Middleware:
    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        clock = request.app[CLOCK]
        request[TRACE_ID] = _trace_id(request, clock)
        started_s = clock.monotonic_s()
        status_class = "aborted"
        try:
            response = await handler(request)
            status_class = f"{response.status // 100}xx"
        except web.HTTPException as redirect:
            status_class = f"{redirect.status // 100}xx"
            raise
        finally:
            seconds = clock.monotonic_s() - started_s
            observe(route_of(request), method_of(request), status_class, seconds)
        return response

    return outer


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever a handler raises becomes an answer of our shape; unexpected errors show nothing inside."""
    try:
        return await handler(request)
    except WunderError as error:
        return _answer(request, error)
    except web.HTTPException as exception:
        if exception.status < 400:
            raise
        return _answer(request, _from_http(exception), dict(exception.headers))
    except Exception as error:
        if request.transport is None or request.transport.is_closing():
            return request.get(STARTED) or web.Response(status=400)  # nobody is there to read it
        log.exception(
            "request_failed",
            error,
            route=route_of(request),
            method=request.method,
            trace_id=request[TRACE_ID],
        )
        return _answer(request, WunderError("unexpected"), logged=True)


@web.middleware
async def origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nothing changes state for a foreign page; CORS preflights are answered here."""
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return _preflight(request)
    if request.method not in _SAFE_METHODS:
        request.app[AUTH].check_origin(request)
    return await handler(request)


def route_of(request: web.Request) -> str:
    """The route's template: a closed set, never the path."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical


def method_of(request: web.Request) -> str:
    return request.method if request.method in _METHODS else "OTHER"


def _trace_id(request: web.Request, clock: Clock) -> str:
    given = request.headers.get("x-trace-id", "")
    return given if _TRACE_ID.fullmatch(given) else clock.new_id("tr")


def _answer(
    request: web.Request, error: WunderError, headers: dict[str, str] | None = None, *, logged: bool = False
) -> web.StreamResponse:
    trace_id = request[TRACE_ID]
    if error.status >= 500 and not logged:
        write = log.info if error.retryable else log.warning  # a flood of 503s is counted, not shouted
        write(
            "request_refused",
            code=error.code,
            error=type(error).__name__,
            message=error.message,
            trace_id=trace_id,
        )
    started: web.StreamResponse | None = request.get(STARTED)
    if started is not None:
        # The head is out: a second answer would be read as part of the stream. Cutting it is the honest sign.
        if request.transport is not None:
            request.transport.close()
        return started
    response = error_response(error, trace_id, request.app[CLOCK].now_us())
    if headers and "Allow" in headers:
        response.headers["Allow"] = headers["Allow"]
    return response


def _from_http(exception: web.HTTPException) -> WunderError:
    match exception.status:
        case 404:
            return NotFound("there is nothing at this path")
        case 405:
            return MethodNotAllowed("this path does not take this method")
        case 413:
            return PayloadTooLarge("the body is too large")
        case 403:
            return PermissionDenied("this is not allowed")
        case status if status < 500:
            return InvalidRequest(exception.reason or "the request is not valid")
        case _:
            return WunderError(exception.reason or "unexpected")


def _preflight(request: web.Request) -> web.Response:
    origin = request.headers.get("Origin", "")
    if not request.app[AUTH].origins.is_listed(origin):
        raise PermissionDenied("this origin may not call the service")
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
            "Access-Control-Allow-Headers": _ALLOW_HEADERS,
            "Access-Control-Max-Age": "600",
        },
    )


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Just before the head goes out: also for streams, WebSockets and files."""
    request[STARTED] = response
    headers = response.headers
    if TRACE_ID in request:
        headers["x-trace-id"] = request[TRACE_ID]
    headers["Server"] = "wunder"
    if response.status == 101:
        return
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("Cache-Control", "no-store")
    is_page = response.content_type == "text/html"
    headers.setdefault("Content-Security-Policy", _PAGE_POLICY if is_page else _API_POLICY)
    auth = request.app[AUTH]
    if auth.networks.scheme(request) == "https":
        headers["Strict-Transport-Security"] = "max-age=31536000"
    _add_cors(request, response, auth.origins.is_listed(request.headers.get("Origin", "")))


def _add_cors(request: web.Request, response: web.StreamResponse, listed: bool) -> None:
    response.headers.add("Vary", "Origin")
    if listed:
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = _EXPOSE_HEADERS


def _observe_nothing(route: str, method: str, status_class: str, seconds: float) -> None:
    """For apps without metrics."""
