"""`wunder tasks`: what waits, what became of it, and doing something about it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any, get_args
from urllib.parse import quote

from gateway.cli.api import Refused
from gateway.cli.caller import PAGE, Action, Caller, add_listing, common_options, run_action
from storage.records import ShownStatus

_TASKS = "/wunder/tasks"
_POLL_S = 1.0
_LATER = frozenset({429, 503})
_ACTIVE = ("queued", "waiting", "running")


def add_task_parsers(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The actions of `wunder tasks`; each sets `run` and `action`."""
    common = common_options(default_url)
    actions = parser.add_subparsers(dest="task_command", required=True)

    def add(name: str, action: Action, help_: str) -> argparse.ArgumentParser:
        command = actions.add_parser(name, help=help_, parents=[common])
        command.set_defaults(run=run_action, action=action, topic="tasks")
        return command

    listing = add("list", list_tasks, "tasks, the newest first")
    listing.add_argument("--status", choices=get_args(ShownStatus), help="only those in this state")
    listing.add_argument("--session", help="only those of this session")
    add_listing(listing)
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


async def _depth_now(caller: Caller, user: str | None) -> dict[str, int] | None:
    """How many are queued and running (a user's: counted up to a page); None if that cannot be known now."""
    try:
        if caller.sees_all and user is None:
            tasks = (await caller.ask("GET", "/wunder/admin/summary"))["tasks"]
            return {state: found["tasks"] for state, found in tasks.items()} or None
        pages = [await caller.page(_TASKS, status=state, limit=PAGE, user_id=user) for state in _ACTIVE]
    except Refused as error:
        if (error.detail or {}).get("status") in _LATER:
            return None
        raise
    return {state: len(page["items"]) for state, page in zip(_ACTIVE, pages, strict=True)}


async def list_tasks(tasks: Caller, options: argparse.Namespace) -> int:
    """One line each."""
    found = await tasks.items(
        _TASKS, options.limit, status=options.status, session_id=options.session, user_id=options.user
    )
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
    task = await tasks.ask("POST", f"{_path(options.task_id)}/answer", body)
    print(json.dumps(task) if options.json else f"{task['task_id']}  {task['status']}")
    return 0


async def drain(tasks: Caller, options: argparse.Namespace) -> int:
    """0 as soon as nothing is queued or running, 1 if that was not so in time."""
    now = asyncio.get_running_loop().time
    deadline_s = None if options.timeout is None else now() + options.timeout
    while True:
        depth = await _depth_now(tasks, options.user)
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
    return f"{_TASKS}/{quote(task_id, safe='')}"


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
