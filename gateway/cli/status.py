"""`wunder status`: is it up, is it ready, and what runs where."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from gateway.cli.api import Api, Refused
from gateway.cli.sign_in import API_KEY_VARIABLE, TokenFile, credential
from gateway.errors import AuthRequired
from gateway.settings_loader import environment
from storage.errors import WunderError

_NEED_ADMIN = f"details need an administrator's token or {API_KEY_VARIABLE}"


def run_status(options: argparse.Namespace, environ: Mapping[str, str] | None = None, home: Path | None = None) -> int:
    """0 if it is ready, 1 if it is not or cannot be reached."""
    try:
        found = asyncio.run(look(options.url, environ or environment(), home or Path.home()))
    except WunderError as error:
        if options.json:
            print(json.dumps({"url": options.url, "alive": False, "ready": False, "reason": error.message}))
        else:
            print(f"wunder status: {error.message}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2) if options.json else "\n".join(lines(found)))
    return 0 if found["ready"] else 1


async def look(url: str, environ: Mapping[str, str], home: Path) -> dict[str, Any]:
    """What the server tells about itself: {url, alive, ready, reason, summary}."""
    async with aiohttp.ClientSession() as http:
        api = Api(http, url)
        await api.request("GET", "/healthz")
        found: dict[str, Any] = {"url": api.url, "alive": True, "ready": True, "reason": None, "summary": None}
        try:
            await api.request("GET", "/readyz")
        except Refused as error:
            found.update(ready=False, reason=error.message)
        headers = credential(environ, TokenFile(home, api.url))
        try:
            if headers:
                answer = await api.request("GET", "/wunder/admin/summary", headers=headers)
                found["summary"] = answer["data"]
            else:
                found["reason"] = found["reason"] or _NEED_ADMIN
        except (Refused, AuthRequired) as error:
            known = (error.detail or {}).get("status") in {401, 403}
            found["reason"] = found["reason"] or (_NEED_ADMIN if known else error.message)
        return found


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    state = "ready" if found["ready"] else "not ready"
    shown = [f"{found['url']}  {state}" + (f"  ({found['reason']})" if found["reason"] else "")]
    summary = found["summary"]
    if summary is None:
        return shown
    gateway, directory = summary.get("gateway") or {}, summary.get("directory")
    shown.append(
        f"gateway {gateway.get('name')}: {gateway.get('connections', 0)} connections, "
        f"{gateway.get('topics', 0)} sessions followed"
    )
    if not directory:
        return [*shown, "the directory does not answer"]
    actors = directory.get("actors") or []
    details = {**(summary.get("actors") or {}), **(summary.get("pools") or {})}
    if directory.get("dashboard"):
        shown.append(f"Ray dashboard http://{directory['dashboard']}, as its machine reaches it")
    shown.append(
        f"permits: {directory.get('permits_held', 0):.0f} held, {directory.get('permits_waiting', 0):.0f} waiting"
    )
    shown.append(f"tasks: {_depth(summary.get('tasks') or {})}")
    shown.append(f"schedules: {_schedules(summary.get('janitor'))}")
    shown += [f"deliveries, {name}: {_deliveries(states)}" for name, states in (summary.get("outbox") or {}).items()]
    shown += [_outbox(name, detail) for name, detail in (summary.get("outboxes") or {}).items()]
    for node in directory.get("nodes") or []:
        shown.append(_node(node))
        shown += [f"  gateway  {g.get('name')}  {g.get('address')}" for g in _on(node, directory.get("gateways") or [])]
        for actor in _on(node, actors):
            detail = details.get(actor.get("name"))
            shown.append(
                f"  pool     {_pool(actor, detail)}" if actor.get("pool") else f"  actor    {_actor(actor, detail)}"
            )
    return shown


def _on(node: dict[str, Any], things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [thing for thing in things if thing.get("node_id") == node.get("node_id")]


def _node(node: dict[str, Any]) -> str:
    text = f"node {node.get('node_id')}  {node.get('address') or ''}  {node.get('cpus', 0):g} CPUs"
    if node.get("places") is not None:
        text += f"  {node['places']} places"
    return text + ("  drained" if node.get("drained") else "")


def _actor(actor: dict[str, Any], detail: dict[str, Any] | None) -> str:
    text = f"{actor.get('name')}  {actor.get('sessions', 0)} sessions"
    if detail is None:
        return f"{text}  does not answer"
    running = f"{detail.get('turns_running', 0):.0f} running, {detail.get('turns_queued', 0):.0f} queued"
    return f"{text}  {running}" + ("  suspect" if actor.get("suspect") else "")


def _pool(actor: dict[str, Any], detail: dict[str, Any] | None) -> str:
    if detail is None:
        return f"{actor.get('name')}  does not answer"
    slots = f"{detail.get('pool_slots_in_use', 0):.0f} of {detail.get('pool_slots', 0):.0f} slots in use"
    done = ", ".join(
        f"{detail.get(number, 0):.0f} {word}"
        for number, word in (("pool_claimed", "claimed"), ("turns_retried", "retried"), ("turns_dead", "dead"))
    )
    return f"{actor.get('name')}  {slots}  {done}" + ("  suspect" if actor.get("suspect") else "")


def _schedules(janitor: dict[str, Any] | None) -> str:
    if not janitor:
        return "the janitor does not answer"
    numbers = ", ".join(
        f"{janitor.get(f'schedules_{word}', 0):.0f} {word}" for word in ("active", "fired", "missed", "refused")
    )
    return f"{numbers}, the last {janitor.get('schedules_lag_seconds', 0):.1f} s late"


def _deliveries(states: dict[str, Any]) -> str:
    """How many of a channel wait, are under way and are dead."""
    return _depth({state: {**found, "tasks": found["deliveries"]} for state, found in states.items()})


def _outbox(name: str, detail: dict[str, Any]) -> str:
    alone = ", ".join(f"{b['channel']} {b['account']}" for b in detail.get("breakers") or [])
    done = ", ".join(f"{detail.get(f'outbox_{word}', 0):.0f} {word}" for word in ("sent", "refused", "lost", "dead"))
    under_way = f"{detail.get('outbox_in_flight', 0):.0f} under way"
    return f"outbox   {name}  {under_way}  {done}" + (f"  left alone: {alone}" if alone else "")


def _depth(tasks: dict[str, Any]) -> str:
    """How many wait and run, everywhere."""
    if not tasks:
        return "the database does not answer"
    shown = []
    for state, found in tasks.items():
        oldest = f" (oldest {found['oldest_age_s']:.1f} s)" if found["tasks"] else ""
        shown.append(f"{found['tasks']} {state}{oldest}")
    return ", ".join(shown)
