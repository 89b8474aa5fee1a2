"""`wunder drain NODE`: take a node out of service, wait until it is empty, or take it back."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.cli.api import Api, Refused, Unreachable
from gateway.cli.sign_in import API_KEY_VARIABLE, TOKEN_VARIABLE, TokenFile, credential
from gateway.errors import AuthRequired
from gateway.settings_loader import environment
from storage.errors import Conflict, NotFound, WunderError

_POLL_S = 1.0
_PATIENCE = 10
"""Questions without an answer, one after the other, after which nobody is asked any more."""
_SUMMARY = "/wunder/admin/summary"
Pause = Callable[[float], Awaitable[None]]


def add_drain_parser(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The options of `wunder drain`."""
    parser.add_argument("node", metavar="NODE", help="its address or the beginning of its id, see `wunder status`")
    parser.add_argument("--url", default=default_url, help="where Wunder is (default: %(default)s)")
    parser.add_argument("--undo", action="store_true", help="use the node again")
    parser.add_argument("--timeout", type=float, default=120.0, help="longest wait in seconds (default: %(default)s)")
    parser.set_defaults(run=run_drain)


def run_drain(
    options: argparse.Namespace,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    pause: Pause = asyncio.sleep,
) -> int:
    """0 if the node is empty (or used again), 1 if not."""
    try:
        return asyncio.run(_run(options, environ or environment(), home or Path.home(), pause))
    except WunderError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"wunder drain: {error.message}{hint}", file=sys.stderr)
        return 1


async def _run(options: argparse.Namespace, environ: Mapping[str, str], home: Path, pause: Pause) -> int:
    async with aiohttp.ClientSession() as http:
        api = Api(http, options.url)
        headers = credential(environ, TokenFile(home, api.url))
        if headers is None:
            hint = f"set {API_KEY_VARIABLE} or {TOKEN_VARIABLE}, or sign in with `wunder chat`"
            raise AuthRequired("who are you?", hint=hint)
        node = find_node((await api.request("GET", _SUMMARY, headers=headers))["data"], options.node)
        path = f"/wunder/admin/nodes/{quote(node['node_id'], safe='')}/drain"
        await api.request("POST", path, body={"undo": options.undo}, headers=headers)
        if options.undo:
            print(f"node {node['node_id']} is used again")
            return 0
        return await _until_empty(api, headers, node["node_id"], options.timeout, pause)


async def _until_empty(api: Api, headers: dict[str, str], node_id: str, timeout_s: float, pause: Pause) -> int:
    shown, silent = -1, 0
    for _ in range(max(1, round(timeout_s / _POLL_S))):
        try:
            summary = (await api.request("GET", _SUMMARY, headers=headers))["data"]
        except (Unreachable, Refused):  # it may be the node's own gateway; behind a proxy the next one answers
            silent += 1
            if silent == _PATIENCE:
                print(f"nobody answers at {api.url} any more; it was the node's own gateway, if that was its address")
                return 0
            await pause(_POLL_S)
            continue
        silent = 0
        left = processes_on(summary, node_id)
        if not left:
            print(f"node {node_id} is empty")
            return 0
        if len(left) != shown:
            print(f"node {node_id}: {len(left)} processes left ({', '.join(left)})", flush=True)
            shown = len(left)
        await pause(_POLL_S)
    print(f"wunder drain: node {node_id} is not empty after {timeout_s:g} s", file=sys.stderr)
    return 1


def find_node(summary: dict[str, Any], wanted: str) -> dict[str, Any]:
    """The one node with this address, or whose id begins so."""
    nodes = (summary.get("directory") or {}).get("nodes") or []
    found = [n for n in nodes if n.get("address") == wanted or str(n.get("node_id", "")).startswith(wanted)]
    if not found:
        known = ", ".join(f"{n.get('node_id')} ({n.get('address')})" for n in nodes) or "none"
        raise NotFound(f"there is no node {wanted!r}; there are: {known}")
    if len(found) > 1:
        raise Conflict(f"{wanted!r} is the beginning of {len(found)} nodes: give more of the id")
    node: dict[str, Any] = found[0]
    return node


def processes_on(summary: dict[str, Any], node_id: str) -> list[str]:
    """The names of the gateways, pools and session actors that are still there."""
    directory = summary.get("directory") or {}
    things = [*(directory.get("gateways") or []), *(directory.get("actors") or [])]
    return [str(thing.get("name")) for thing in things if thing.get("node_id") == node_id]
