"""A server of its own for a benchmark: settings, `wunder serve`, upstream, and Postgres if it is asked for."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from scripts.benchmarks.plan import API_KEY
from scripts.benchmarks.processes import ProcessTree
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
TICK_MS = 2.0
Storage = Literal["sqlite", "postgres"]
_READY_S = 120.0
_STOP_S = 60.0


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` are "section.key" with a value, on top of `bench_settings`."""

    storage: Storage = "sqlite"
    settings: dict[str, Any] = {}


class Bench:
    """Everything that one benchmark started: `processes` knows them all by kind."""

    def __init__(
        self, url: str, upstream_port: int, processes: ProcessTree, settings: dict[str, Any], folder: Path
    ) -> None:
        self.url = url
        self.folder = folder
        self.processes = processes
        self.settings = settings
        self.start_s = 0.0
        self._upstream_port = upstream_port

    def ray_address(self) -> str:
        """Where the server's own Ray can be joined."""
        (raylet,) = self.processes.of_kind("raylet")
        command = Path(f"/proc/{raylet}/cmdline").read_bytes().split(b"\0")
        return next(part.partition(b"=")[2].decode() for part in command if part.startswith(b"--gcs-address="))

    def upstream_active(self) -> int:
        """Answers that upstream is giving now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._upstream_port}/stats", timeout=5) as answer:
            return int(msgspec.json.decode(answer.read())["active"])


def bench_settings(upstream_port: int, storage_url: str) -> dict[str, Any]:
    """The settings that differ from the defaults: an upstream, a key, and limits that are not what is measured."""
    base_url = f"http://127.0.0.1:{upstream_port}/v1"
    upstream = {"provider": "openai", "base_url": base_url, "model": "bench", "api_key": "none"}
    return {
        "server": {"dashboard_port": 0},
        "storage": {"url": storage_url},
        "security": {"api_key": API_KEY},
        "llm": {"default": "upstream", "models": {"upstream": upstream}},
        "sessions": {"max_active": 2000, "max_active_per_user": 1000},
        "gateway": {"max_subscriptions_per_connection": 1000, "max_connections_per_user": 20_000},
        "observability": {"log_level": "warning"},
    }


@contextlib.contextmanager
def running(options: ServerOptions) -> Iterator[Bench]:
    """A ready server; whatever happens, all of its processes have ended and its folder is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="wunder-bench-"))
    folder.chmod(0o755)
    processes = ProcessTree()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(processes.end_rest)
        upstream_port = _start_upstream(stack, processes)
        url = (
            _start_postgres(stack, processes, folder) if options.storage == "postgres" else "sqlite:///{data_dir}/b.db"
        )
        settings = bench_settings(upstream_port, url)
        for key, value in options.settings.items():
            section, _, name = key.partition(".")
            settings.setdefault(section, {})[name] = value
        port = free_port()
        bench = Bench(f"http://127.0.0.1:{port}", upstream_port, processes, settings, folder)
        begin = time.monotonic()
        _start_server(stack, bench, folder, port)
        bench.start_s = time.monotonic() - begin
        yield bench


def _start_upstream(stack: contextlib.ExitStack, processes: ProcessTree) -> int:
    command = [sys.executable, "-m", "tests.support.upstream", "--port", "0", "--tick-ms", str(TICK_MS)]
    upstream = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    stack.callback(end_process, upstream, 5.0)
    processes.add(upstream.pid, "upstream")
    assert upstream.stdout is not None
    return int(upstream.stdout.readline())


def _start_postgres(stack: contextlib.ExitStack, processes: ProcessTree, folder: Path) -> str:
    server = PostgresServer(folder / "postgres", max_connections=200)
    stack.callback(server.remove)
    server.start()
    processes.add(server.pids()[0], "postgres")
    return server.create_database()


def _start_server(stack: contextlib.ExitStack, bench: Bench, folder: Path, port: int) -> None:
    config, log = folder / "wunder.yaml", folder / "server.log"
    config.write_text(yaml.safe_dump(bench.settings))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", str(port)]
    command += ["--data-dir", str(folder / "data")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WUNDER_")}
    environment["PYTHONPATH"] = str(ROOT)  # this checkout's code, wherever the environment is
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_many_files,  # noqa: PLW1509 - no threads here
        )
    stack.callback(_stop_server, server, bench.processes)
    bench.processes.add(server.pid)
    deadline = time.monotonic() + _READY_S
    while not _is_ready(bench.url):
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not get ready:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)


def _many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=3) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop_server(server: subprocess.Popen[bytes], processes: ProcessTree) -> None:
    processes.pids()  # remember what lives now: it may outlive its parent
    begin = time.monotonic()
    end_process(server, _STOP_S)
    if rest := processes.end_rest(spare=("upstream", "postgres", "client")):
        print(f"note: {rest} processes of the server outlived it and were killed", flush=True)
    print(f"server stopped after {time.monotonic() - begin:.1f} s", flush=True)


def end_process(process: subprocess.Popen[Any], patience_s: float) -> None:
    """SIGTERM, then SIGKILL to its group."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        print(f"note: process {process.pid} did not stop within {patience_s:g} s", flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
