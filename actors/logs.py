"""Log lines: an action plus fields. Never payloads, never secrets; control characters are escaped."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import msgspec

from actors.clock import isoformat
from actors.settings import ObservabilitySettings

_ROOT = "wunder"


class Log:
    """`log.info("turn_finished", status="failed")`."""

    def __init__(self, name: str = _ROOT) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, action: str, **fields: Any) -> None:
        self._write(logging.DEBUG, action, fields)

    def info(self, action: str, **fields: Any) -> None:
        self._write(logging.INFO, action, fields)

    def warning(self, action: str, **fields: Any) -> None:
        self._write(logging.WARNING, action, fields)

    def error(self, action: str, **fields: Any) -> None:
        self._write(logging.ERROR, action, fields)

    def exception(self, action: str, error: BaseException, **fields: Any) -> None:
        """An error nobody expected: where it came from, without the values that were there."""
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        where = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames))
        self._write(logging.ERROR, action, {**fields, "error": type(error).__name__, "where": where})

    def _write(self, level: int, action: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, action, extra={"fields": fields})


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": isoformat(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "action": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return msgspec.json.encode(line, enc_hook=str).decode()


class _ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{k}={_plain(v)}" for k, v in getattr(record, "fields", {}).items())
        time = isoformat(int(record.created * 1_000_000))[11:23]
        return f"{time} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()


def _plain(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else msgspec.json.encode(text).decode()


def configure_logs(settings: ObservabilitySettings) -> None:
    """Send this process's log lines to standard error (once)."""
    logger = logging.getLogger(_ROOT)
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(_ConsoleFormatter() if console else _JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(settings.log_level.upper())
    logger.propagate = False


log = Log()
