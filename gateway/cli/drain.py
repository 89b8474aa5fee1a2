"""`wunder drain NODE`: take a node out of service, wait until it is empty, or take it back."""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote

from gateway.cli.api import Refused, Unreachable
from gateway.cli.caller import Caller, run_action
from storage.errors import Conflict, NotFound

_POLL_S = 1.0
_PATIENCE = 10
"""Questions without an answer, one after the other, after which nobody is asked any more."""
_SUMMARY = "/wunder/admin/summary"


def add_drain_parser(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The options of `wunder drain`."""
    parser.add_argument("node", metavar="NODE", help="its address or the beginning of its id, see `wunder status`")
    parser.add_argument("--url", default=default_url, help="where Wunder is (default: %(default)s)")
    parser.add_argument("--undo", action="store_true", help="use the node again")
    parser.add_argument("--timeout", type=float, default=120.0, help="longest wait in seconds (default: %(default)s)")
    parser.set_defaults(run=run_action, topic="drain", action=drain)


async def drain(caller: Caller, options: argparse.Namespace) -> int:
    """0 if the node is empty (or used again), 1 if not."""
    node = find_node(await caller.ask("GET", _SUMMARY), options.node)
    path = f"/wunder/admin/nodes/{quote(node['node_id'], safe='')}/drain"
    await caller.ask("POST", path, {"undo": options.undo})
    if options.undo:
        print(f"node {node['node_id']} is used again")
        return 0
    return await _until_empty(caller, node["node_id"], options.url, options.timeout)


async def _until_empty(caller: Caller, node_id: str, url: str, timeout_s: float) -> int:
    shown, silent = -1, 0
    for _ in range(max(1, round(timeout_s / _POLL_S))):
        try:
            left = processes_on(await caller.ask("GET", _SUMMARY), node_id)
        except (Unreachable, Refused):  # it may be the node's own gateway; behind a proxy the next one answers
            silent += 1
            if silent == _PATIENCE:
                print(f"nobody answers at {url} any more; it was the node's own gateway, if that was its address")
                return 0
            await caller.pause(_POLL_S)
            continue
        silent = 0
        if not left:
            print(f"node {node_id} is empty")
            return 0
        if len(left) != shown:
            print(f"node {node_id}: {len(left)} processes left ({', '.join(left)})", flush=True)
            shown = len(left)
        await caller.pause(_POLL_S)
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
    """The names of the gateways, pools, session actors and outboxes that are still there."""
    directory = summary.get("directory") or {}
    things = [thing for kind in ("gateways", "actors", "outboxes") for thing in directory.get(kind) or []]
    return [str(thing.get("name")) for thing in things if thing.get("node_id") == node_id]
