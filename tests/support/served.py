"""`wunder serve` as a process of its own on a local Ray: what the integration and fault tests talk to and hurt."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from tests.support.postgres import free_port

API_KEY = "served-api-key"
START_TIMEOUT_S = 120.0
_ADDRESS = re.compile(r"^  address    (\S+)$", re.MULTILINE)

Kind = Literal["SessionActor", "WorkerPool", "Outbox", "Gateway", "Directory", "Janitor"]


class Served:
    """A running service; processes of a kind can be found, stopped and killed by their ids."""

    def __init__(self, folder: Path, storage_url: str, sections: dict[str, Any]) -> None:
        self.folder = folder
        self.storage_url = storage_url
        self.url = ""
        self.output = ""
        self._sections = sections
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        config = self.folder / "wunder.yaml"
        self.output = ""
        tree: dict[str, Any] = {
            "server": {"port": self._port, "data_dir": str(self.folder / "data"), "dashboard_port": 0},
            "storage": {"url": self.storage_url},
            "security": {"api_key": API_KEY},
        }
        for section, values in self._sections.items():
            tree.setdefault(section, {}).update(values)
        config.write_text(yaml.safe_dump(tree))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("WUNDER_", "RAY_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._wait_for("Wunder is ready.", "  chat  ")
        found = _ADDRESS.search(self.output)
        assert found is not None, self.output
        self.url = found[1]

    def _wait_for(self, *texts: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while not all(text in self.output for text in texts):
            ready, _, _ = select.select([descriptor], [], [], START_TIMEOUT_S)
            data = os.read(descriptor, 65_536) if ready else b""
            if not data:
                raise AssertionError(f"wunder serve did not start:\n{self.output}")
            self.output += data.decode(errors="replace")

    def processes(self, kind: Kind) -> list[psutil.Process]:
        """The processes of a kind, oldest first."""
        assert self._process is not None
        found = []
        for child in psutil.Process(self._process.pid).children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if title.startswith(f"ray::{kind}"):
                found.append(child)
        return sorted(found, key=lambda p: p.create_time())

    def family(self) -> list[psutil.Process]:
        """The service's process and every process below it."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def kill(self, kind: Kind) -> list[int]:
        """SIGKILL to every process of a kind; their ids."""
        killed = self.processes(kind)
        for process in killed:
            process.send_signal(signal.SIGKILL)
        return [process.pid for process in killed]

    def kill_caller(self, port: int, from_port: int) -> list[int]:
        """SIGKILL to the process of the service that has this connection to a port; its id."""
        for process in self.family()[1:]:
            connections = process.net_connections("tcp4") if process.is_running() else []
            if any(c.raddr and (c.laddr.port, c.raddr.port) == (from_port, port) for c in connections):
                process.send_signal(signal.SIGKILL)
                return [process.pid]
        return []

    def stop(self) -> int:
        """SIGTERM, as an operator would; the exit code."""
        assert self._process is not None
        family = self.family()
        for process in family[1:]:
            if process.is_running() and process.status() == psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=90)
        finally:
            for process in family:
                if process.is_running():
                    process.kill()
        return self._process.returncode
