"""`wunder outbox`: deliveries that wait, were sent or are dead, and sending or dropping them. For administrators."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, get_args
from urllib.parse import quote

from gateway.cli.caller import Action, Caller, common_options, run_action
from storage.outbox_records import OutboxState

_OUTBOX = "/wunder/admin/outbox"
_MOST = 1000


def add_outbox_parsers(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The actions of `wunder outbox`; each sets `run` and `action`."""
    common = common_options(default_url)
    actions = parser.add_subparsers(dest="outbox_command", required=True)

    def add(name: str, action: Action, help_: str) -> argparse.ArgumentParser:
        command = actions.add_parser(name, help=help_, parents=[common])
        command.set_defaults(run=run_action, action=action, topic="outbox")
        return command

    listing = add("list", list_deliveries, "deliveries, the newest first")
    _add_filters(listing, "only those")
    listing.add_argument("--limit", type=int, default=50, help="how many at most (default: %(default)s)")
    showing = add("show", show_delivery, "a delivery with its attempts")
    showing.add_argument("delivery_id", help="its id, as `wunder outbox list` shows it")
    for name, help_ in (
        ("retry", "send deliveries again: dead, dropped or sent ones, and waiting ones at once"),
        ("drop", "do not send waiting deliveries any more, and dismiss dead ones"),
    ):
        command = add(name, change_deliveries, help_)
        command.set_defaults(change=name)
        command.add_argument("delivery_ids", nargs="*", metavar="delivery_id", help="which ones; or --state")
        _add_filters(command, "all")


def _add_filters(command: argparse.ArgumentParser, which: str) -> None:
    command.add_argument("--state", choices=get_args(OutboxState), help=f"{which} in this state")
    command.add_argument("--channel", help=f"{which} of this channel")
    command.add_argument("--account", help=f"{which} of this account")


async def list_deliveries(caller: Caller, options: argparse.Namespace) -> int:
    """One line each."""
    found = await caller.items(_OUTBOX, options.limit, **_filters(options))
    print(json.dumps(found, indent=2) if options.json else "\n".join(map(_line, found)) or "no deliveries")
    return 0


async def show_delivery(caller: Caller, options: argparse.Namespace) -> int:
    """Everything about one."""
    found = await caller.ask("GET", f"{_OUTBOX}/{quote(options.delivery_id, safe='')}")
    print(json.dumps(found, indent=2) if options.json else "\n".join(_details(found)))
    return 0


async def change_deliveries(caller: Caller, options: argparse.Namespace) -> int:
    """0 if each that was named changed, or all that fit; 1 if one did not."""
    if bool(options.delivery_ids) == bool(options.state):
        print(f"wunder outbox {options.change}: name deliveries, or give --state", file=sys.stderr)
        return 1
    path, wanted = f"{_OUTBOX}/{options.change}", list(options.delivery_ids)
    body: dict[str, Any] = {"delivery_ids": wanted} if wanted else {**_filters(options), "limit": _MOST}
    changed: list[str] = []
    while True:
        answer = await caller.ask("POST", path, body=body)
        new = [found for found in answer["delivery_ids"] if found not in changed]
        changed += new
        if not answer["more"] or not new:
            break
    print(json.dumps(changed) if options.json else "\n".join(changed) or "no deliveries")
    return 1 if set(wanted) - set(changed) else 0


def _filters(options: argparse.Namespace) -> dict[str, str | None]:
    return {name: getattr(options, name) for name in ("state", "channel", "account")}


def _line(found: dict[str, Any]) -> str:
    code = f"  {found['code']}" if found["code"] else ""
    return (
        f"{found['delivery_id']}  {found['state']:<7}  {found['channel']}  {found['account']}  {found['peer']}  "
        f"{found['created_at']}  attempt {found['attempt']}{code}"
    )


def _details(found: dict[str, Any]) -> list[str]:
    shown = [f"{found['delivery_id']}  {found['state']}"]
    rows = {
        "channel": found["channel"],
        "account": found["account"],
        "peer": found["peer"],
        "task": found["task_id"],
        "created": found["created_at"],
        "due": found["due_at"],
        "finished": found["finished_at"],
        "body": json.dumps(found["body"]),
    }
    shown += [f"  {name:<9} {value}" for name, value in rows.items() if value is not None]
    for attempt in found["attempts"]:
        words = [str(attempt[name]) for name in ("outcome", "status", "code") if attempt[name] is not None]
        shown.append(f"  attempt {attempt['attempt']}: {' '.join(words)}  {attempt['finished_at']}")
        if attempt["detail"]:
            shown.append(f"    {attempt['detail']}")
    return shown
