"""`wunder tasks`: what waits, what became of it, and doing something about it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, urlencode

from gateway.cli.api import Refused
from gateway.cli.caller import Action, Caller, Pause, add_action, run_action
from storage.records import ShownStatus

_PAGE = 200
_POLL_S = 1.0
_LATER = frozenset({429, 503})
_ACTIVE = ("queued", "waiting", "running")


def add_task_parsers(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The actions of `wunder tasks`; each sets `run` and `action`."""
    actions = parser.add_subparsers(dest="task_command", required=True)

    def add(name: str, action: Action, help_: str) -> argparse.ArgumentParser:
        return add_action(actions, name, run_tasks, action, help_, default_url)

    listing = add("list", list_tasks, "tasks, the newest first")
    listing.add_argument("--status", choices=get_args(ShownStatus), help="only those in this state")
    listing.add_argument("--session", help="only those of this session")
    listing.add_argument("--user", help="whose, with an API key (default: everybody's)")
    listing.add_argument("--limit", type=int, default=50, help="how many at most (default: %(default)s)")
    for name, action, help_ in (
        ("show", show_task, "a task with its attempts and their errors"),
        ("cancel", cancel_task, "cancel a task that waits or runs"),
        ("retry", retry_task, "queue a dead or failed task again"),
    ):
        add(name, action, help_).add_argument("task_id", help="its id, as `wunder tasks list` shows it")
    answering = add("answer", answer_task, "answer what a turn has asked, so that it goes on")
    answering.add_argument("task_id", help="its id, as `wunder tasks list --status waiting` shows it")
    answering.add_argument("answer", help="the answer")
    draining = add("drain", drain, "wait until nothing is queued or running")
    draining.add_argument("--user", help="whose, with an API key (default: everybody's)")
    draining.add_argument("--timeout", type=float, help="seconds after which to give up (default: never)")


def run_tasks(
    options: argparse.Namespace,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    pause: Pause = asyncio.sleep,
) -> int:
    """0 if it was done, 1 if not."""
    return run_action("tasks", options, environ, home, pause)


async def _page(tasks: Caller, **filters: Any) -> dict[str, Any]:
    """A page of the list; without a user everybody's, if the caller may see them."""
    if not filters.get("user_id"):
        filters["user_id"] = "*" if tasks.sees_all else None
    query = urlencode({name: value for name, value in filters.items() if value is not None})
    found: dict[str, Any] = await tasks.ask("GET", f"/wunder/tasks?{query}")
    return found


async def _queued(tasks: Caller, user: str | None) -> dict[str, int] | None:
    """How many are queued and running (a user's: counted up to a page); None if that cannot be known now."""
    try:
        if tasks.sees_all and user is None:
            summary = (await tasks.ask("GET", "/wunder/admin/summary"))["tasks"]
            return {state: found["tasks"] for state, found in summary.items()} or None
        pages = [await _page(tasks, status=state, limit=_PAGE, user_id=user) for state in _ACTIVE]
    except Refused as error:
        if (error.detail or {}).get("status") in _LATER:
            return None
        raise
    return {state: len(page["items"]) for state, page in zip(_ACTIVE, pages, strict=True)}


async def list_tasks(tasks: Caller, options: argparse.Namespace) -> int:
    """One line each."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < options.limit:
        page = await _page(
            tasks,
            status=options.status,
            session_id=options.session,
            user_id=options.user,
            limit=min(_PAGE, options.limit - len(found)),
            cursor=cursor,
        )
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_line(task) for task in found) or "no tasks")
    return 0


async def show_task(tasks: Caller, options: argparse.Namespace) -> int:
    """Everything about one."""
    task = await tasks.ask("GET", _path(options.task_id))
    print(json.dumps(task, indent=2) if options.json else "\n".join(_details(task)))
    return 0


async def cancel_task(tasks: Caller, options: argparse.Namespace) -> int:
    """0 with a receipt; 1 if it had ended before."""
    receipt = await tasks.ask("DELETE", _path(options.task_id))
    if options.json:
        print(json.dumps(receipt))
    elif receipt["cancelled"]:
        print(f"{receipt['task_id']}  cancelled")
    else:
        print(f"{receipt['task_id']}  had ended before: {receipt['status']}")
    return 0 if receipt["cancelled"] else 1


async def retry_task(tasks: Caller, options: argparse.Namespace) -> int:
    """0 if it is queued again."""
    task = await tasks.ask("POST", f"{_path(options.task_id)}/retry")
    print(json.dumps(task) if options.json else f"{task['task_id']}  {task['status']}")
    return 0


async def answer_task(tasks: Caller, options: argparse.Namespace) -> int:
    """0 if the turn goes on; 1 if it has asked nothing."""
    waiting = (await tasks.ask("GET", _path(options.task_id)))["waiting"] or {}
    if "call_id" not in waiting:
        print("wunder tasks: this task waits for no answer", file=sys.stderr)
        return 1
    body = {"call_id": waiting["call_id"], "answer": options.answer}
    task = await tasks.ask("POST", f"{_path(options.task_id)}/answer", body=body)
    print(json.dumps(task) if options.json else f"{task['task_id']}  {task['status']}")
    return 0


async def drain(tasks: Caller, options: argparse.Namespace) -> int:
    """0 as soon as nothing is queued or running, 1 if that was not so in time."""
    now = asyncio.get_running_loop().time
    deadline_s = None if options.timeout is None else now() + options.timeout
    while True:
        depth = await _queued(tasks, options.user)
        if options.json:
            print(json.dumps(depth), flush=True)
        else:
            print("cannot be known now" if depth is None else _depth(depth), flush=True)
        if depth is not None and not any(depth.values()):
            return 0
        if deadline_s is not None and now() >= deadline_s:
            print("wunder tasks: not drained in time", file=sys.stderr)
            return 1
        await tasks.pause(_POLL_S)


def _path(task_id: str) -> str:
    return f"/wunder/tasks/{quote(task_id, safe='')}"


def _depth(depth: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in depth.items())


def _line(task: dict[str, Any]) -> str:
    error = f"  {task['error']['code']}" if task["error"] else ""
    return (
        f"{task['task_id']}  {task['status']:<11}  {task['user_id']}  {task['session_id']}  "
        f"{task['created_at']}  attempt {task['attempt']}{error}"
    )


def _details(task: dict[str, Any]) -> list[str]:
    shown = [f"{task['task_id']}  {task['status']}{_error(task)}"]
    rows = {
        "user": task["user_id"],
        "session": task["session_id"],
        "priority": task["priority"],
        "attempts": f"{task['attempt']} started, {task['crashes']} crashed, {task['max_attempts']} may fail",
        "created": task["created_at"],
        "asks": (task.get("waiting") or {}).get("question"),
        "waits for": " ".join((task.get("waiting") or {}).get("agents", ())) or None,
        "run at": task["run_at"],
        "started": task["started_at"],
        "finished": task["finished_at"],
    }
    shown += [f"  {name:<9} {value}" for name, value in rows.items() if value is not None]
    shown += [
        f"  attempt {found['attempt']}: {found['outcome']}  {found['finished_at'] or ''}".rstrip() + _error(found)
        for found in task["attempts"]
    ]
    return shown if task["answer"] is None else [*shown, "", task["answer"]]


def _error(thing: dict[str, Any]) -> str:
    error = thing["error"]
    return f"  ({error['code']}: {error['message']})" if error else ""
