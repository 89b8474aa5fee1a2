"""A Ray cluster that outlives the `wunder serve` which joins it: one node, or more of them on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.support.postgres import free_port

START_TIMEOUT_S = 120.0


class RayHead:
    """`ray start --head` on loopback with a token of its own; `environment` is what joins it."""

    def __init__(self, folder: Path, *, joinable: bool = False) -> None:
        # Ray's own folder is where others on this machine would find this cluster; sockets need a short path.
        self._folder = Path(tempfile.mkdtemp(prefix="wunder-ray-"))
        self.address = f"127.0.0.1:{free_port()}"
        token = folder / "ray_token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": str(int(joinable)),  # 0 keeps its listeners on loopback
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._nodes: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> None:
        """Start it and wait until it can be joined."""
        port = self.address.rpartition(":")[2]
        dashboard = () if any("dashboard" in option for option in options) else ("--include-dashboard=false",)
        head = ("--head", f"--port={port}", "--disable-usage-stats", f"--temp-dir={self._folder}")
        self._start(*head, *dashboard, *options)

    def join(self, *options: str) -> None:
        """Another node of a cluster that is `joinable`, on this machine."""
        self._start(f"--address={self.address}", *options)

    def _start(self, *options: str) -> None:
        ray = str(Path(sys.executable).parent / "ray")
        host = self.address.partition(":")[0]
        common = ["--block", f"--node-ip-address={host}", "--num-cpus=2", "--object-store-memory=100000000"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WUNDER_", "RAY_"))}
        process = subprocess.Popen(
            [ray, "start", *common, *options],
            env={**clean, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._nodes.append(process)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                return
        raise AssertionError("ray start failed:\n" + "".join(said))

    def processes(self, kind: str) -> list[psutil.Process]:
        """The actors of a kind."""
        return [p for p in self._children() if _title(p).startswith(f"ray::{kind}")]

    def _children(self) -> list[psutil.Process]:
        return [child for node in self._nodes for child in psutil.Process(node.pid).children(recursive=True)]

    def stop(self) -> None:
        """End every node and everything on it."""
        family = self._children()
        for node in reversed(self._nodes):
            node.terminate()
        try:
            for node in self._nodes:
                node.wait(60)
        finally:
            for node in self._nodes:
                assert node.stdout is not None
                node.stdout.close()
            for process in family:
                if process.is_running():
                    process.kill()
            shutil.rmtree(self._folder, ignore_errors=True)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
