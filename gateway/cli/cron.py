"""`wunder cron`: what is scheduled, what became of it, and changing it."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any, get_args
from urllib.parse import quote

from gateway.cli.caller import Action, Caller, add_listing, common_options, run_action
from storage.schedule_records import MissedPolicy

_SCHEDULES = "/wunder/cron"
_SHOWN_RUNS = 10
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_BODY = ("question", "name", "at", "every", "cron", "zone", "missed", "grace_s", "session_id", "agent_id", "model_name")


def add_cron_parsers(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The actions of `wunder cron`; each sets `run` and `action`."""
    common = common_options(default_url)
    actions = parser.add_subparsers(dest="cron_command", required=True)

    def add(name: str, action: Action, help_: str) -> argparse.ArgumentParser:
        command = actions.add_parser(name, help=help_, parents=[common])
        command.set_defaults(run=run_action, action=action, topic="cron")
        return command

    add_listing(add("list", list_schedules, "schedules, the newest first"))
    _add_options_of_add(add("add", add_schedule, "make a schedule"))
    for name, action, help_ in (
        ("show", show_schedule, "a schedule with its next due times and its last runs"),
        ("pause", pause_schedule, "let nothing be due until it is resumed"),
        ("resume", resume_schedule, "go on after a pause; what was due meanwhile is not made up for"),
        ("run", run_schedule, "queue one of its tasks now, besides its due times"),
        ("delete", delete_schedule, "remove it with its history; its tasks stay"),
    ):
        add(name, action, help_).add_argument("schedule_id", help="its id, as `wunder cron list` shows it")


def _add_options_of_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", help="what each run asks")
    when = parser.add_mutually_exclusive_group(required=True)
    when.add_argument("--at", metavar="TIME", help="once, such as 2027-01-02T03:04:05Z, or without Z as in --zone")
    when.add_argument("--every", metavar="DURATION", type=duration, help="such as 30s, 15m, 2h, 1d")
    when.add_argument("--cron", metavar="EXPRESSION", help="such as '30 9 * * mon-fri', or @daily")
    parser.add_argument("--zone", help="IANA time zone of --cron and --at, such as Europe/Berlin (default: UTC)")
    parser.add_argument("--name", help="for people")
    parser.add_argument("--missed", choices=get_args(MissedPolicy), help="due times that went by (default: latest)")
    parser.add_argument("--grace", dest="grace_s", metavar="DURATION", type=duration, help="when skip calls it missed")
    parser.add_argument("--session", dest="session_id", help="session of all runs (default: one for each)")
    parser.add_argument("--agent", dest="agent_id", help="one of llm.agents")
    parser.add_argument("--model", dest="model_name", help="one of llm.models")
    parser.add_argument("--paused", action="store_true", help="make it paused")
    parser.add_argument("--user", help="for whom, with an API key")


def duration(text: str) -> float:
    """Seconds of a text such as 90, 30s, 15m, 2h, 1d."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a duration such as 30s, 15m, 2h, 1d, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


async def list_schedules(cron: Caller, options: argparse.Namespace) -> int:
    """One line each."""
    found = await cron.items(_SCHEDULES, options.limit, user_id=options.user)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_line(schedule) for schedule in found) or "no schedules")
    return 0


async def show_schedule(cron: Caller, options: argparse.Namespace) -> int:
    """Everything about one."""
    path = _path(options.schedule_id)
    schedule = await cron.ask("GET", path)
    runs = (await cron.ask("GET", f"{path}/history?limit={_SHOWN_RUNS}"))["items"]
    if options.json:
        print(json.dumps({**schedule, "history": runs}, indent=2))
    else:
        print("\n".join([*_details(schedule), *map(_run_line, runs)]))
    return 0


async def add_schedule(cron: Caller, options: argparse.Namespace) -> int:
    """0 once it is stored."""
    body = {name: value for name in _BODY if (value := getattr(options, name)) is not None}
    body |= {"paused": options.paused} | ({"user_id": options.user} if options.user else {})
    schedule = await cron.ask("POST", _SCHEDULES, body)
    print(json.dumps(schedule, indent=2) if options.json else _line(schedule))
    return 0


async def pause_schedule(cron: Caller, options: argparse.Namespace) -> int:
    """0 once nothing is due any more."""
    return await _change(cron, options, {"paused": True})


async def resume_schedule(cron: Caller, options: argparse.Namespace) -> int:
    """0 once it goes on."""
    return await _change(cron, options, {"paused": False})


async def run_schedule(cron: Caller, options: argparse.Namespace) -> int:
    """0 once its task is queued."""
    task = await cron.ask("POST", f"{_path(options.schedule_id)}/run")
    print(json.dumps(task) if options.json else f"{task['task_id']}  {task['status']}  {task['session_id']}")
    return 0


async def delete_schedule(cron: Caller, options: argparse.Namespace) -> int:
    """0 once it is gone."""
    receipt = await cron.ask("DELETE", _path(options.schedule_id))
    print(json.dumps(receipt) if options.json else f"{receipt['schedule_id']}  deleted")
    return 0


async def _change(cron: Caller, options: argparse.Namespace, body: dict[str, Any]) -> int:
    schedule = await cron.ask("PATCH", _path(options.schedule_id), body)
    print(json.dumps(schedule, indent=2) if options.json else _line(schedule))
    return 0


def _path(schedule_id: str) -> str:
    return f"{_SCHEDULES}/{quote(schedule_id, safe='')}"


def _when(schedule: dict[str, Any]) -> str:
    if schedule["at"] is not None:
        return f"at {schedule['at']}"
    if schedule["every"] is not None:
        return f"every {schedule['every']:g} s"
    return f"cron '{schedule['cron']}' {schedule['zone']}"


def _line(schedule: dict[str, Any]) -> str:
    state = "paused" if schedule["paused"] else f"next {schedule['next_run_at'] or 'never'}"
    name = f"  {schedule['name']}" if schedule["name"] else ""
    return f"{schedule['schedule_id']}  {state:<29}  {_when(schedule)}  {schedule['user_id']}{name}"


def _details(schedule: dict[str, Any]) -> list[str]:
    reason = f" ({schedule['pause_reason']})" if schedule["pause_reason"] else ""
    rows = {
        "name": schedule["name"] or None,
        "user": schedule["user_id"],
        "asks": schedule["task"]["question"],
        "session": schedule["session_id"] or "one for each run",
        "missed": f"{schedule['missed']}, grace {schedule['grace_s']:g} s",
        "paused": f"yes{reason}" if schedule["paused"] else None,
        "upcoming": ", ".join(schedule["upcoming"]) or None,
        "last run": schedule["last_run_at"],
        "runs": schedule["runs"],
    }
    shown = [f"{schedule['schedule_id']}  {_when(schedule)}"]
    return shown + [f"  {name:<9} {value}" for name, value in rows.items() if value is not None]


def _run_line(run: dict[str, Any]) -> str:
    if run["outcome"] == "skipped":
        what = f"{run['missed']} due until {run['until']}"
    elif run["error"]:
        what = f"{run['error']['code']}: {run['error']['message']}"
    else:
        what = f"{run['task_id']}  {run['task_status'] or 'deleted'}"
    return f"  {run['due_at']}  {run['outcome']:<7}  {what}" + ("  by hand" if run["manual"] else "")
