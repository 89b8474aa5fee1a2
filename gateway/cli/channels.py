"""`wunder channels`: which accounts there are, and whether their providers take them. For administrators."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

from gateway.cli.caller import Action, Caller, common_options, run_action

_ACCOUNTS = "/wunder/admin/channels"


def add_channel_parsers(parser: argparse.ArgumentParser, default_url: str) -> None:
    """The actions of `wunder channels`; each sets `run` and `action`."""
    common = common_options(default_url)
    actions = parser.add_subparsers(dest="channel_command", required=True)

    def add(name: str, action: Action, help_: str) -> argparse.ArgumentParser:
        command = actions.add_parser(name, help=help_, parents=[common])
        command.set_defaults(run=run_action, action=action, topic="channels")
        return command

    add("list", list_accounts, "the accounts, without their secrets")
    testing = add("test", check_account, "try an account's credentials at its provider")
    testing.add_argument("account", help="its name, as `wunder channels list` shows it")


async def list_accounts(caller: Caller, options: argparse.Namespace) -> int:
    """One line each."""
    items = (await caller.ask("GET", _ACCOUNTS))["items"]
    print(json.dumps(items, indent=2) if options.json else "\n".join(map(_line, items)) or "There are no accounts.")
    return 0


async def check_account(caller: Caller, options: argparse.Namespace) -> int:
    """0 if the provider takes it."""
    tried = await caller.ask("POST", f"{_ACCOUNTS}/{quote(options.account, safe='')}/test")
    if options.json:
        print(json.dumps(tried, indent=2))
    elif tried["works"]:
        print(f"{tried['account']}: works {tried['detail']}".rstrip())
    else:
        print(f"{tried['account']}: does not work: {tried['code']} {tried['detail']}".rstrip())
    return 0 if tried["works"] else 1


def _line(item: dict[str, Any]) -> str:
    state = "" if item["enabled"] else ", disabled"
    source = "settings file" if item["from_file"] else "API"
    agent = f", agent {item['agent']}" if item["agent"] else ""
    return f"{item['account']}: {item['channel']} ({source}{state}{agent})"
