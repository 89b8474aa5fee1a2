"""`wunder channels`: which accounts there are, and whether their providers take them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.cli.api import Api
from gateway.cli.sign_in import API_KEY_VARIABLE, TokenFile, credential
from gateway.errors import AuthRequired
from gateway.settings_loader import environment
from storage.errors import WunderError


def add_channel_parsers(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The actions of `wunder channels`; each sets `run` and `action`."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=default_url, help="where Wunder is (default: %(default)s)")
    common.add_argument("--json", action="store_true", help="print JSON")
    actions = parser.add_subparsers(dest="channel_command", required=True)
    listing = actions.add_parser("list", help="the accounts, without their secrets", parents=[common])
    listing.set_defaults(run=run_channels, account=None)
    testing = actions.add_parser("test", help="try an account's credentials at its provider", parents=[common])
    testing.add_argument("account", help="its name, as `wunder channels list` shows it")
    testing.set_defaults(run=run_channels)


def run_channels(
    options: argparse.Namespace, environ: Mapping[str, str] | None = None, home: Path | None = None
) -> int:
    """0 if it was done (and the account works), 1 if not."""
    try:
        return asyncio.run(_run(options, environ or environment(), home or Path.home()))
    except WunderError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"wunder channels: {error.message}{hint}", file=sys.stderr)
        return 1


async def _run(options: argparse.Namespace, environ: Mapping[str, str], home: Path) -> int:
    async with aiohttp.ClientSession() as http:
        api = Api(http, options.url)
        headers = credential(environ, TokenFile(home, api.url))
        if headers is None:
            raise AuthRequired("who are you?", hint=f"set {API_KEY_VARIABLE}, or sign in as an administrator")
        path = "/wunder/admin/channels"
        if options.account is None:
            found = (await api.request("GET", path, headers=headers))["data"]["items"]
            _print_list(found, as_json=options.json)
            return 0
        tried = (await api.request("POST", f"{path}/{quote(options.account)}/test", headers=headers))["data"]
        _print_test(tried, as_json=options.json)
        return 0 if tried["works"] else 1


def _print_list(items: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(items, indent=2))
        return
    if not items:
        print("There are no accounts.")
    for item in items:
        state = "" if item["enabled"] else ", disabled"
        source = "settings file" if item["from_file"] else "API"
        agent = f", agent {item['agent']}" if item["agent"] else ""
        print(f"{item['account']}: {item['channel']} ({source}{state}{agent})")


def _print_test(tried: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(tried, indent=2))
    elif tried["works"]:
        print(f"{tried['account']}: works {tried['detail']}".rstrip())
    else:
        print(f"{tried['account']}: does not work: {tried['code']} {tried['detail']}".rstrip())
