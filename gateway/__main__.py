"""The command line: `wunder serve | stop | migrate | drain | status | tasks | cron | outbox | channels | chat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from actors.errors import WunderError
from gateway.cli import add_parsers
from gateway.process import detach, migrate, stop
from gateway.serve import private_directory, serve
from gateway.settings import Settings
from gateway.settings_loader import environment, load_settings, option_overrides
from gateway.voice import ReadyPipe

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
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, rest = parser.parse_known_args(given)
    options.arguments = given
    try:
        if options.command in _WITH_SETTINGS:
            return _WITH_SETTINGS[options.command](options, _settings(options, rest))
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return int(options.run(options))
    except WunderError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        print(f"wunder {options.command}: {error.message}{hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _settings(options: argparse.Namespace, rest: list[str]) -> Settings:
    overrides = option_overrides(rest)
    for name, key in _OPTIONS.items():
        value = getattr(options, name, None)
        if value is not None:
            overrides[key] = value
    return load_settings(options.config, overrides, environment())


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    if options.detach:
        return detach(options.arguments, private_directory(settings.server.data_dir))
    return serve(settings, None if options.ready_fd is None else ReadyPipe(options.ready_fd))


def _stop(options: argparse.Namespace, settings: Settings) -> int:
    return stop(settings.server.data_dir, timeout_s=options.timeout)


def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    return migrate(settings, post=options.post)


_WITH_SETTINGS = {"serve": _serve, "stop": _stop, "migrate": _migrate}
_MORE = "Any setting can be given as --section.key VALUE (see config/wunder.yaml)."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wunder", description=__doc__)
    parser.add_argument("--version", action="version", version=version("wunder"))
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", help="settings file (default: config/wunder.yaml if it is there)")
    common.add_argument("--data-dir", help="folder of the local database (server.data_dir)")
    command = commands.add_parser("serve", help="start everything and keep it running", epilog=_MORE, parents=[common])
    command.add_argument("--host", help="address to listen on (server.host)")
    command.add_argument("--port", help="port to listen on (server.port)")
    command.add_argument("--storage-url", help="sqlite:///path or postgresql://... (storage.url)")
    command.add_argument("--address", help="Ray cluster to join, e.g. auto (server.ray_address)")
    command.add_argument("--detach", action="store_true", help="go on in the background once it is ready")
    command.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    stopping = commands.add_parser("stop", help="drain and end what serves from a data folder", parents=[common])
    stopping.add_argument("--timeout", type=float, default=120.0, help="longest wait in seconds (default: %(default)s)")
    migrating = commands.add_parser("migrate", help="bring the database's schema up to date", parents=[common])
    migrating.add_argument("--storage-url", help="sqlite:///path or postgresql://... (storage.url)")
    migrating.add_argument(
        "--post", action="store_true", help="also what older processes could not stand: every one of them has ended"
    )
    add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
