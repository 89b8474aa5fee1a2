"""Commands about the process that serves: `wunder serve --detach`, `wunder stop`, `wunder migrate`."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from actors.errors import Conflict, ServiceUnavailable
from gateway.pid_file import PidFile
from gateway.serve import private_directory, with_paths
from gateway.settings import Settings
from gateway.voice import SETTLED
from storage.factory import create_store
from storage.migrate import Migrated

LOG = "wunder.log"
_TAIL_LINES = 20


def detach(arguments: Sequence[str], data_dir: Path) -> int:
    """Run the same command in the background, and wait until it is ready; its log's end if it is not."""
    if (running := PidFile(data_dir).running()) is not None:
        raise Conflict(f"process {running} already serves from {data_dir}", hint="`wunder stop` ends it")
    path = data_dir / LOG
    started_at = path.stat().st_size if path.exists() else 0
    reader, writer = os.pipe()
    kept = [argument for argument in arguments if argument != "--detach"]
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *kept, "--ready-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            start_new_session=True,
        )
    os.close(writer)
    try:
        ready = _relay(reader)
    except KeyboardInterrupt:
        process.terminate()
        raise
    if ready:
        process.returncode = 0  # it goes on without us: nothing here waits for it
        print(f"  process    {process.pid}, log {path}; `wunder stop` ends it")
        return 0
    code = process.wait()
    raise ServiceUnavailable(f"it did not start (exit code {code}); the end of {path}:\n{_tail(path, started_at)}")


def _relay(reader: int) -> bool:
    """Show what the process says; whether its start has succeeded."""
    with os.fdopen(reader, encoding="utf-8", errors="replace") as said:
        for line in said:
            if line == SETTLED:
                return True
            print(line, end="", flush=True)
    return False


def _tail(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def stop(path: str, *, timeout_s: float) -> int:
    """SIGTERM to what serves from a data folder, and wait for its end: it drains first. 0 if it has ended."""
    data_dir = Path(path).expanduser().resolve()
    pid = PidFile(data_dir).running()
    if pid is None:
        print(f"wunder stop: nothing serves from {data_dir}", file=sys.stderr)
        return 1
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], timeout_s)
    finally:
        os.close(process)
    if not ended:
        hint = f"running turns may take sessions.drain_grace_s; look again, or end it with kill -9 {pid}"
        raise ServiceUnavailable(f"process {pid} still drains after {timeout_s:g} s", hint=hint)
    print(f"process {pid} has ended")
    return 0


def migrate(settings: Settings, *, post: bool) -> int:
    """Apply migrations without starting anything; says what was applied and what waits."""
    settings = with_paths(settings, private_directory(settings.server.data_dir))
    migrated = asyncio.run(_migrate(settings, post=post))
    for name in migrated.applied:
        print(f"applied  {name}")
    for name in migrated.waiting:
        print(f"waits    {name}  (wunder migrate --post, once every process of an older release has ended)")
    if not migrated.applied and not migrated.waiting:
        print("the schema is up to date")
    return 0


async def _migrate(settings: Settings, *, post: bool) -> Migrated:
    store = create_store(settings.storage)
    try:
        await store.open()
        return await store.migrate(post=post)
    finally:
        await store.close()
