"""Commands that ask the server as somebody: who that is, their common options, and what they return."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from gateway.cli.api import Api
from gateway.cli.sign_in import API_KEY_VARIABLE, TOKEN_VARIABLE, TokenFile, credential
from gateway.errors import AuthRequired
from gateway.settings_loader import environment
from storage.errors import WunderError

Pause = Callable[[float], Awaitable[None]]


class Caller:
    """The server's routes, as one caller sees them."""

    def __init__(self, api: Api, headers: dict[str, str], pause: Pause) -> None:
        self._api = api
        self._headers = headers
        self.pause = pause
        self.sees_all = "X-API-Key" in headers

    async def ask(self, method: str, path: str, *, body: Any = None) -> Any:
        """The `data` of an answer."""
        answer = await self._api.request(method, path, body=body, headers=self._headers)
        return answer["data"]


Action = Callable[[Caller, argparse.Namespace], Awaitable[int]]


def add_action(
    actions: Any, name: str, run: Callable[..., int], action: Action, help_: str, default_url: str
) -> argparse.ArgumentParser:
    """One action of a command, with the options that all of them have."""
    command: argparse.ArgumentParser = actions.add_parser(name, help=help_)
    command.add_argument("--url", default=default_url, help="where Wunder is (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run, action=action)
    return command


def run_action(
    name: str,
    options: argparse.Namespace,
    environ: Mapping[str, str] | None,
    home: Path | None,
    pause: Pause = asyncio.sleep,
) -> int:
    """The exit code of the chosen action; 1 with the reason if it could not be done."""
    try:
        return asyncio.run(_run(options, environ or environment(), home or Path.home(), pause))
    except WunderError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"wunder {name}: {error.message}{hint}", file=sys.stderr)
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
