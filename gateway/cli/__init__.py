"""The client commands, `wunder chat`, `status`, `tasks`, `cron` and so on: they speak the public protocol only."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gateway.cli.caller import run_action
from gateway.cli.channels import add_channel_parsers
from gateway.cli.chat import run_chat
from gateway.cli.cron import add_cron_parsers
from gateway.cli.drain import add_drain_parser
from gateway.cli.outbox import add_outbox_parsers
from gateway.cli.status import run_status
from gateway.cli.tasks import add_task_parsers

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

__all__ = ["add_parsers", "run_action", "run_chat", "run_status"]

DEFAULT_URL = "http://127.0.0.1:18000"
_FOR_ADMINISTRATORS = "For administrators: WUNDER_API_KEY, WUNDER_TOKEN, or a sign-in by `wunder chat`."


def add_parsers(commands: Commands) -> None:
    """Add the client commands; each sets `run`, which takes the parsed options and returns the exit code."""
    chat = commands.add_parser(
        "chat",
        help="talk to an agent in the terminal",
        description="Talk to an agent. Ctrl-C cancels the answer that is coming, twice leaves.",
        epilog="WUNDER_TOKEN is used instead of signing in. A token is kept in ~/.config/wunder.",
    )
    chat.add_argument("--url", default=DEFAULT_URL, help="where Wunder is (default: %(default)s)")
    chat.add_argument("--user", help="user name to sign in with")
    chat.add_argument("--register", action="store_true", help="make the user first")
    chat.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")
    chat.add_argument("--session", help="go on with this session (default: a new one)")
    chat.add_argument("--model", help="model to ask, one of llm.models")
    chat.add_argument("--message", help="ask this, print the answer, and leave")
    chat.set_defaults(run=run_chat)
    status = commands.add_parser(
        "status",
        help="show what runs where",
        epilog="Details need an administrator: WUNDER_API_KEY, WUNDER_TOKEN, or a sign-in by `wunder chat`.",
    )
    status.add_argument("--url", default=DEFAULT_URL, help="where Wunder is (default: %(default)s)")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=run_status)
    tasks = commands.add_parser(
        "tasks",
        help="list, show, cancel, retry and wait for background tasks",
        epilog="Everybody's with WUNDER_API_KEY; your own with WUNDER_TOKEN, or a sign-in by `wunder chat`.",
    )
    add_task_parsers(tasks, DEFAULT_URL)
    cron = commands.add_parser(
        "cron",
        help="list, show, add, pause, resume, run and delete schedules",
        epilog="Everybody's with WUNDER_API_KEY; your own with WUNDER_TOKEN, or a sign-in by `wunder chat`.",
    )
    add_cron_parsers(cron, DEFAULT_URL)
    _add_operators_parsers(commands)


def _add_operators_parsers(commands: Commands) -> None:
    """What is for administrators."""
    drain = commands.add_parser(
        "drain",
        help="take a node out of service: hand its sessions over and end its processes",
        epilog=_FOR_ADMINISTRATORS,
    )
    add_drain_parser(drain, DEFAULT_URL)
    outbox = commands.add_parser(
        "outbox",
        help="list, show, send again and drop deliveries",
        epilog=_FOR_ADMINISTRATORS,
    )
    add_outbox_parsers(outbox, DEFAULT_URL)
    channels = commands.add_parser(
        "channels",
        help="list and try accounts at messaging providers",
        epilog=_FOR_ADMINISTRATORS,
    )
    add_channel_parsers(channels, DEFAULT_URL)
