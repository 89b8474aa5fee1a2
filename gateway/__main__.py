"""The command line: `wunder serve | chat | status | tasks | outbox | channels`, also `python -m gateway`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from actors.errors import WunderError
from gateway.cli import add_parsers
from gateway.serve import serve
from gateway.settings_loader import environment, load_settings, option_overrides

_OPTIONS = {
    "host": "server.host",
    "port": "server.port",
    "data_dir": "server.data_dir",
    "storage_url": "storage.url",
    "address": "server.ray_address",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors people can mend are one screen, without a traceback."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    try:
        if options.command == "serve":
            return _serve(options, rest)
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return int(options.run(options))
    except WunderError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        print(f"wunder {options.command}: {error.message}{hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _serve(options: argparse.Namespace, rest: list[str]) -> int:
    overrides = option_overrides(rest)
    for name, key in _OPTIONS.items():
        value = getattr(options, name)
        if value is not None:
            overrides[key] = value
    return serve(load_settings(options.config, overrides, environment()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wunder", description=__doc__)
    parser.add_argument("--version", action="version", version=version("wunder"))
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "serve",
        help="start everything and keep it running",
        epilog="Any setting can be given as --section.key VALUE (see config/wunder.yaml).",
    )
    command.add_argument("--config", help="settings file (default: config/wunder.yaml if it is there)")
    command.add_argument("--host", help="address to listen on (server.host)")
    command.add_argument("--port", help="port to listen on (server.port)")
    command.add_argument("--data-dir", help="folder of the local database (server.data_dir)")
    command.add_argument("--storage-url", help="sqlite:///path or postgresql://... (storage.url)")
    command.add_argument("--address", help="Ray cluster to join, e.g. auto (server.ray_address)")
    add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
