"""`wunder serve --address` on a cluster that is not its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.support.postgres import free_port
from tests.support.ray_head import RayHead
from tests.support.served import API_KEY

KINDS = ("Directory", "Janitor", "Gateway", "WorkerPool", "Outbox", "SessionActor")
READY = "  chat  "


class Joined:
    """`wunder serve` as a member of a cluster that is not its own."""

    def __init__(self, head: RayHead, folder: Path) -> None:
        self.head = head
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.sections: dict[str, Any] = {
            "server": {
                "port": int(self.url.rpartition(":")[2]),
                "data_dir": str(folder / "data"),
                "ray_address": head.address,
            },
            "storage": {"url": f"sqlite:///{folder}/data/wunder.db"},
            "security": {"api_key": API_KEY},
            "sessions": {"drain_grace_s": 5.0},
        }
        self._process: subprocess.Popen[str] | None = None
        self._others: list[Joined] = []

    def another(self) -> Joined:
        """A second supervisor with the same settings."""
        other = Joined(self.head, self.folder)
        other.url, other.sections = self.url, self.sections
        self._others.append(other)
        return other

    def close(self) -> None:
        """End what still runs of these supervisors; their actors end with the cluster."""
        for each in (*self._others, self):
            if each._process is not None and each._process.poll() is None:
                each.end(signal.SIGKILL)

    def start(self, until: str = READY) -> None:
        """Start it, and wait until it says so."""
        config = self.folder / "wunder.yaml"
        config.write_text(yaml.safe_dump(self.sections))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WUNDER_", "RAY_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(config)],
            env={**clean, **self.head.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self.wait_for(until)
        if (address := re.search(r"^  address    (\S+)$", said, re.MULTILINE)) is not None:
            self.url = address[1]

    def wait_for(self, text: str) -> str:
        """What it says until this text."""
        assert self._process is not None
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if text in line:
                return "".join(said)
        raise AssertionError(f"it ended before it said {text!r}:\n" + "".join(said))

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(number)
        code = self._process.wait(90)
        self._process.stdout.close()
        return code

    def keeps(self, before: dict[str, set[int]]) -> bool:
        """Whether all of these processes are still there."""
        now = self.pids()
        return all(pids <= now[kind] for kind, pids in before.items())

    def pids(self) -> dict[str, set[int]]:
        return {kind: {p.pid for p in self.head.processes(kind)} for kind in KINDS}


async def answer(joined: Joined) -> None:
    """A turn from its question to its end."""
    body = {"question": "count to 3", "user_id": "somebody"}
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": API_KEY}, timeout=timeout) as session,
        session.post(f"{joined.url}/wunder", json=body) as response,
    ):
        assert response.status == 200, await response.text()
        assert "turn_terminal" in await response.text()
