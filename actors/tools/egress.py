"""The one guarded HTTP client for requests whose target a user or a model chose: tools and webhooks.

Each hop of a redirect is checked like a first request; what a caller sends as headers goes only to the origin it was
meant for; time, size (also after decompression) and redirects are bounded; proxies of the environment are ignored.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from actors.tools.egress_connector import MAX_CONNECTIONS, AddressBlocked, GuardedConnector
from actors.tools.egress_policy import EgressFailed, EgressPolicy, EgressRefused, EgressUnreachable, check_authority

__all__ = ["EgressFailed", "EgressPolicy", "EgressRefused", "EgressUnreachable", "GuardedClient", "OutboundResponse"]

MAX_REDIRECTS = 3
_SLACK_BYTES = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)
_SAFE_HEADERS = frozenset(("accept", "accept-language", "user-agent"))


class OutboundResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the last hop; `truncated` if its body was longer than allowed."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes
    truncated: bool

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        for part in self.headers.get("Content-Type", "").split(";")[1:]:
            name, _, value = part.strip().partition("=")
            if name.lower() == "charset":
                return value.strip("\"' ")
        return "utf-8"


class GuardedClient:
    """One per process; `request` may run many times at once. `EgressRefused` or `EgressFailed` are its errors."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        timeout_s: float,
        max_bytes: int,
        max_redirects: int = MAX_REDIRECTS,
        max_connections: int = MAX_CONNECTIONS,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._policy = policy
        self._max_connections = max_connections
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
        max_bytes: int | None = None,
        follow_redirects: bool = True,
    ) -> OutboundResponse:
        """Send it and read the answer, all hops together within `timeout_s`."""
        limit_s = timeout_s or self._timeout_s
        hops = self._max_redirects if follow_redirects else 0
        try:
            async with asyncio.timeout(limit_s):
                return await self._follow(method, url, dict(headers or {}), body, max_bytes or self._max_bytes, hops)
        except TimeoutError:
            raise EgressFailed(f"The host did not answer within {limit_s:g} s.") from None
        except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
            raise _translated(error) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _follow(
        self, method: str, target: str | URL, headers: dict[str, str], body: bytes | None, max_bytes: int, hops: int
    ) -> OutboundResponse:
        url = self._policy.check_url(target)
        for left in range(hops, -1, -1):
            async with self._open_session().request(
                method, url, headers=headers, data=body, allow_redirects=False
            ) as response:
                location = response.headers.get("Location") if response.status in _REDIRECTS else None
                if location is None or hops == 0:
                    return await _answer(response, max_bytes, bodyless=method == "HEAD")
                status = response.status
            if left == 0:
                break
            onward = self._policy.check_url(_joined(url, location))
            same = onward.origin() == url.origin()
            if not same:
                headers = {name: value for name, value in headers.items() if name.lower() in _SAFE_HEADERS}
            if status == 303 or (status in (301, 302) and method == "POST"):
                method, body = ("HEAD" if method == "HEAD" else "GET"), None
            if body is not None and not same:
                raise EgressRefused("A body is not sent on to another origin.")
            url = onward
        raise EgressRefused(f"The host redirected more than {hops} times.")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=GuardedConnector(self._policy, self._resolver, limit=self._max_connections),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "wunder", "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
                requote_redirect_url=False,
            )
        return self._session


def _joined(url: URL, location: str) -> URL:
    try:
        check_authority(location)
        return url.join(URL(location))
    except ValueError:
        raise EgressRefused("The host redirected to something that is not a URL.") from None


async def _answer(response: aiohttp.ClientResponse, max_bytes: int, *, bodyless: bool) -> OutboundResponse:
    body, truncated = (b"", False) if bodyless else await _read(response, max_bytes)
    return OutboundResponse(
        status=response.status,
        url=str(response.url),
        headers=response.headers,
        body=body,
        truncated=truncated,
    )


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    """At most `max_bytes` of the body as it is meant; the connection is closed when there is more."""
    inflate = _inflater(response.headers.get("Content-Encoding", "identity").strip().lower())
    pieces: list[bytes] = []
    room, raw = max_bytes, 0
    async for data in response.content.iter_any():
        piece = data if inflate is None else inflate.decompress(data, room + 1)
        pieces.append(piece[:room])
        raw += len(data)
        if len(piece) > room or raw > max_bytes + _SLACK_BYTES:
            response.close()
            return b"".join(pieces), True
        room -= len(piece)
        if inflate is not None and inflate.eof:
            response.close()
            break
    return b"".join(pieces), False


def _inflater(encoding: str) -> Any:
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32)
    raise EgressFailed("The host compressed its answer in a way that was not asked for.")


def _translated(error: Exception) -> EgressRefused | EgressFailed:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressBlocked):
            return EgressRefused("The host's address may not be reached from here.")
        cause = getattr(cause, "os_error", None) or cause.__cause__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return EgressUnreachable("The host's name has no address.")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return EgressUnreachable("The host's certificate is not valid.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return EgressUnreachable("The host cannot be reached.")
    if isinstance(error, aiohttp.InvalidURL):
        return EgressRefused("That is not a URL that may be fetched.")
    return EgressFailed("The host did not answer with proper HTTP, or the connection broke.")
