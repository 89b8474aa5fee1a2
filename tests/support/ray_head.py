"""A Ray cluster of one node that outlives the `wunder serve` which joins it."""

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

    def __init__(self, folder: Path) -> None:
        # Ray's own folder is where others on this machine would find this cluster; sockets need a short path.
        self._folder = Path(tempfile.mkdtemp(prefix="wunder-ray-"))
        self.address = f"127.0.0.1:{free_port()}"
        token = folder / "ray_token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._process: subprocess.Popen[str] | None = None
        self._family: list[psutil.Process] = []

    def start(self) -> None:
        """Start it and wait until it can be joined."""
        host, _, port = self.address.partition(":")
        ray = str(Path(sys.executable).parent / "ray")
        options = [
            "--include-dashboard=false",
            "--num-cpus=2",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
            f"--temp-dir={self._folder}",
        ]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WUNDER_", "RAY_"))}
        self._process = subprocess.Popen(
            [ray, "start", "--head", "--block", f"--port={port}", f"--node-ip-address={host}", *options],
            env={**clean, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                return
        raise AssertionError("ray start failed:\n" + "".join(said))

    def processes(self, kind: str) -> list[psutil.Process]:
        """The actors of a kind."""
        return [p for p in self._children() if _title(p).startswith(f"ray::{kind}")]

    def _children(self) -> list[psutil.Process]:
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def stop(self) -> None:
        """End the node and everything on it."""
        assert self._process is not None
        assert self._process.stdout is not None
        family = self._children()
        self._process.terminate()
        try:
            self._process.wait(60)
        finally:
            self._process.stdout.close()
            for process in family:
                if process.is_running():
                    process.kill()
            shutil.rmtree(self._folder, ignore_errors=True)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
