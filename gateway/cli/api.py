"""HTTP as the client commands need it: JSON in, JSON out, and errors that say what to do."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from gateway.errors import AuthRequired
from storage.errors import InvalidRequest, WunderError

_TIMEOUT = aiohttp.ClientTimeout(total=40, connect=10)


class Refused(WunderError):
    """What the server answered instead of doing it; `detail["code"]` and `detail["status"]` are its own."""


class Unreachable(WunderError):
    """Nobody answers at that URL."""


def check_url(url: str) -> str:
    """The URL without a slash at its end; `InvalidRequest` if it is none."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidRequest(f"--url: expected something like http://host:18000, got {url!r}")
    return url.rstrip("/")


class Api:
    """Requests to one server."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = check_url(url)

    async def request(self, method: str, path: str, *, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The answer's JSON, or the error it stands for."""
        try:
            async with self.http.request(
                method, self.url + path, json=body, headers=headers, timeout=_TIMEOUT
            ) as response:
                answer = await _json(response)
                if response.status >= 400:
                    raise refusal(response.status, answer)
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"cannot reach {self.url}: {reason(error)}") from None


async def _json(response: aiohttp.ClientResponse) -> Any:
    try:
        return await response.json(content_type=None)
    except ValueError:
        return None


def refusal(status: int, answer: Any) -> WunderError:
    """The error in the body of an answer, or in the payload of an `error` frame."""
    found = answer.get("error", answer) if isinstance(answer, dict) else {}
    if not isinstance(found, dict) or "code" not in found:
        return Refused(f"the server answered {status}; is it Wunder?", detail={"code": "", "status": status})
    message, hint = str(found.get("message") or found["code"]), found.get("hint")
    kind = AuthRequired if found["code"] == AuthRequired.code else Refused
    return kind(message, hint=hint, detail={"code": found["code"], "status": status})


def reason(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number and number > 0 else error.strerror or str(error.os_error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
