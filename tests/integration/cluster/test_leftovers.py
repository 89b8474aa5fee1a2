"""`wunder serve --address`: what a supervisor leaves when it is killed is adopted if it is fit, else replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import yaml

from tests.support.postgres import free_port
from tests.support.ray_head import RayHead
from tests.support.served import API_KEY

KINDS = ("Directory", "Janitor", "Gateway", "WorkerPool", "SessionActor")


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

    def start(self) -> None:
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
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "  chat  " in line:
                return
        raise AssertionError("it did not start:\n" + "".join(said))

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(number)
        code = self._process.wait(90)
        self._process.stdout.close()
        return code

    def pids(self) -> dict[str, set[int]]:
        return {kind: {p.pid for p in self.head.processes(kind)} for kind in KINDS}


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Joined]:
    head = RayHead(tmp_path)
    head.start()
    try:
        yield Joined(head, tmp_path)
    finally:
        head.stop()


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


async def test_the_leftovers_of_a_killed_supervisor(joined: Joined) -> None:
    joined.start()
    await answer(joined)
    joined.end(signal.SIGKILL)
    left = joined.pids()

    joined.start()  # its own gateway still has the port
    await answer(joined)
    assert {kind: joined.pids()[kind] & pids for kind, pids in left.items()} == left, "all of it was fit"

    joined.end(signal.SIGKILL)
    joined.sections["sessions"]["max_active"] = 7
    joined.start()
    await answer(joined)
    now = joined.pids()
    assert {kind: now[kind] & pids for kind, pids in left.items()} == {kind: set() for kind in KINDS}, "other settings"
    assert [len(now[kind]) for kind in ("Directory", "Janitor", "Gateway")] == [1, 1, 1]

    joined.end(signal.SIGKILL)
    hung = psutil.Process(next(iter(now["Gateway"])))
    hung.send_signal(signal.SIGSTOP)
    joined.start()
    await answer(joined)
    assert hung.pid not in joined.pids()["Gateway"]

    assert joined.end(signal.SIGTERM) == 0
    assert joined.pids() == {kind: set() for kind in KINDS}
