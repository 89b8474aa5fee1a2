"""Everything of a run: Postgres, the world, the proxies, the service. Whatever happens, all of it ends with the run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import yaml

from scripts.benchmarks.processes import ProcessTree
from scripts.benchmarks.server import ROOT, end_process
from scripts.chaos_runs import proxy, world
from scripts.chaos_runs.effects import models
from scripts.chaos_runs.helper import Helper
from scripts.chaos_runs.options import PLAN_VARIABLE, Options, Plan
from scripts.chaos_runs.statements import AUDIT_TABLE
from tests.support.postgres import PostgresServer

API_KEY = "chaos-api-key-0123456789"
_READY_S = 180.0
_STOP_S = 60.0
_ADDRESS = re.compile(r"^  address    (\S+)$", re.MULTILINE)


class Lease(msgspec.Struct, frozen=True):
    """A pool became an owner: a line that its process wrote down."""

    pid: int
    pool: str
    owner: str
    at_us: int

    @property
    def number(self) -> int:
        """Of the pool's node, and so of its proxy."""
        return int(self.pool.removeprefix("pool-")[:2])


class Arena:
    """What faults hit and oracles read."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self.options = options
        self.processes = ProcessTree()
        self.postgres = PostgresServer(folder / "postgres", max_connections=250)
        self.acknowledged = folder / "acknowledged.jsonl"
        self.effects = folder / "effects.jsonl"
        self.settings: dict[str, Any] = {}
        self.urls: tuple[str, ...] = ()
        self.world_url = ""
        self.storage_url = ""
        self.proxies: Helper
        self._owners = folder / "owners.jsonl"

    def leases(self) -> list[Lease]:
        """Every time that a pool became an owner, the first first."""
        if not self._owners.exists():
            return []
        return [msgspec.json.decode(line, type=Lease) for line in self._owners.read_bytes().splitlines()]

    def pools(self) -> dict[int, Lease]:
        """The pools that live and have been owners, by process id, each with its newest lease."""
        newest = {lease.pid: lease for lease in self.leases()}
        return {pid: newest[pid] for pid in self.processes.of_kind("pools") if pid in newest}

    def start(self, stack: contextlib.ExitStack) -> None:
        """Start all of it; `stack` ends it."""
        options, folder = self.options, self.folder
        self.effects.touch()
        work = world.Work(ledger=str(self.effects), seed=options.seed, hold_s=options.hold_s)
        port = self._helper(stack, "world", work).said["port"]
        self.world_url = f"http://127.0.0.1:{port}"
        stack.callback(self.postgres.remove)
        self.postgres.start()
        self.processes.add(self.postgres.pids()[0], "postgres")
        self.storage_url = self.postgres.create_database()
        self.postgres.sql(AUDIT_TABLE, database=self.storage_url.rpartition("/")[2])
        self.proxies = self._helper(stack, "proxy", proxy.Work(postgres_port=self.postgres.port, ports=options.pools))
        plan = Plan(
            pools=options.pools, proxies=tuple(self.proxies.said), owners=str(self._owners), fenced=options.fenced
        )
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
        self.settings = _settings(options, self.storage_url, port, folder)
        (folder / "wunder.yaml").write_text(yaml.safe_dump(self.settings))
        self._start_service(stack)

    def _helper(self, stack: contextlib.ExitStack, name: str, work: msgspec.Struct) -> Helper:
        helper = Helper(name, work)
        stack.callback(helper.stop)
        return helper

    def _start_service(self, stack: contextlib.ExitStack) -> None:
        folder, log = self.folder, self.folder / "service.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("WUNDER_", "RAY_"))}
        environment |= {"PYTHONPATH": str(ROOT), PLAN_VARIABLE: str(folder / "plan.json")}
        command = [sys.executable, "-m", "scripts.chaos_runs.serve", "serve", "--config", str(folder / "wunder.yaml")]
        with log.open("wb") as out:
            service = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        stack.callback(self._stop_service, service)
        self.processes.add(service.pid)
        deadline = time.monotonic() + _READY_S
        while "  chat  " not in (text := log.read_text(errors="replace")) or not self._all_pools():
            if service.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not get ready:\n{text[-4000:]}")
            time.sleep(0.2)
        self.urls = tuple(_ADDRESS.findall(text))

    def log_tail(self, lines: int) -> list[str]:
        """The last lines that the supervisor wrote."""
        return (self.folder / "service.log").read_text(errors="replace").splitlines()[-lines:]

    def _all_pools(self) -> bool:
        return len(self.pools()) >= self.options.pools

    def _stop_service(self, service: subprocess.Popen[bytes]) -> None:
        self.processes.pids()  # remember what lives now: it may outlive its parent
        end_process(service, _STOP_S)
        self.processes.end_rest(spare=("postgres",))

    async def connect(self) -> asyncpg.Connection:
        """A connection of the harness, which no fault is aimed at (a restart hits it all the same)."""
        return await asyncpg.connect(self.storage_url, timeout=5, server_settings={"application_name": "chaos"})


@contextlib.contextmanager
def arena(options: Options) -> Iterator[Arena]:
    """A ready arena."""
    folder = Path(tempfile.mkdtemp(prefix="wunder-chaos-"))
    folder.chmod(0o755)  # Postgres runs as another user and has to reach its folder
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Arena(folder, options)
        stack.callback(made.processes.end_rest)
        made.start(stack)
        yield made


def _settings(options: Options, storage_url: str, world_port: int, folder: Path) -> dict[str, Any]:
    """What differs from the defaults: short leases, and limits that are not what is tried here."""
    lease_s = options.lease_s
    scripted: dict[str, Any] = msgspec.to_builtins(models())
    return {
        "server": {"port": 0, "data_dir": str(folder / "data"), "dashboard_port": 0},
        "storage": {"url": storage_url},
        "security": {"api_key": API_KEY},
        "llm": {"models": scripted},
        "sessions": {
            "lease_s": lease_s,
            "lease_stop_s": lease_s * 2 / 3,
            "lease_renew_s": lease_s / 6,
            "sweep_s": 0.5,
            "drain_grace_s": 5.0,
        },
        "agent_queue": {
            "lease_s": lease_s,
            "max_workers": options.slots,
            "claim_batch": options.slots,
            "max_queued": 1_000_000,
            "max_queued_per_user": 1_000_000,
        },
        "tools": {"http_allow_hosts": [f"127.0.0.1:{world_port}"]},
        "observability": {"log_level": "warning"},
    }
