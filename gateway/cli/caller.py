"""What the commands about tasks and schedules share: who calls, one request at a time, and pages."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from gateway.cli.api import Api
from gateway.cli.sign_in import API_KEY_VARIABLE, TOKEN_VARIABLE, TokenFile, credential
from gateway.errors import AuthRequired
from gateway.settings_loader import environment
from storage.errors import WunderError

PAGE = 200
Pause = Callable[[float], Awaitable[None]]


class Caller:
    """One caller's requests."""

    def __init__(self, api: Api, headers: dict[str, str], pause: Pause) -> None:
        self._api = api
        self._headers = headers
        self.pause = pause
        self.sees_all = "X-API-Key" in headers

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The `data` of an answer."""
        answer = await self._api.request(method, path, body=body, headers=self._headers)
        return answer["data"]

    async def page(self, path: str, **filters: Any) -> dict[str, Any]:
        """A page of a list; without a user everybody's, if the caller may see them."""
        if not filters.get("user_id"):
            filters["user_id"] = "*" if self.sees_all else None
        query = urlencode({name: value for name, value in filters.items() if value is not None})
        found: dict[str, Any] = await self.ask("GET", f"{path}?{query}")
        return found

    async def items(self, path: str, limit: int, **filters: Any) -> list[dict[str, Any]]:
        """The first `limit` items of a list."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(found) < limit:
            page = await self.page(path, **filters, limit=min(PAGE, limit - len(found)), cursor=cursor)
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        return found


Action = Callable[[Caller, argparse.Namespace], Awaitable[int]]


def common_options(default_url: str) -> argparse.ArgumentParser:
    """Options of every action."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=default_url, help="where Wunder is (default: %(default)s)")
    common.add_argument("--json", action="store_true", help="print JSON")
    return common


def add_listing(listing: argparse.ArgumentParser) -> None:
    """Options of every list."""
    listing.add_argument("--user", help="whose, with an API key (default: everybody's)")
    listing.add_argument("--limit", type=int, default=50, help="how many at most (default: %(default)s)")


def run_action(
    options: argparse.Namespace,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    pause: Pause = asyncio.sleep,
) -> int:
    """Do what `options.action` says: 0 if it was done, 1 if not."""
    try:
        return asyncio.run(_run(options, environ or environment(), home or Path.home(), pause))
    except WunderError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"wunder {options.topic}: {error.message}{hint}", file=sys.stderr)
        return 1


async def _run(options: argparse.Namespace, environ: Mapping[str, str], home: Path, pause: Pause) -> int:
    async with aiohttp.ClientSession() as http:
        api = Api(http, options.url)
        headers = credential(environ, TokenFile(home, api.url))
        if headers is None:
            hint = f"set {API_KEY_VARIABLE} or {TOKEN_VARIABLE}, or sign in with `wunder chat`"
            raise AuthRequired("who are you?", hint=hint)
        code: int = await options.action(Caller(api, headers, pause), options)
        return code
