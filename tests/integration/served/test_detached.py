"""`wunder serve --detach` and `wunder stop` for real: in the background until it is ready, and drained at its end."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.follower import Follower
from tests.support.postgres import free_port
from tests.support.served import API_KEY

TIMEOUT_S = 240.0


def wunder(folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WUNDER_", "RAY_"))}
    return subprocess.run(
        [sys.executable, "-m", "gateway", command, "--data-dir", str(folder / "data"), *arguments],
        env={**environment, "WUNDER_SECURITY__API_KEY": API_KEY},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


async def test_in_the_background_and_back(tmp_path: Path) -> None:
    port = str(free_port())
    start = ("serve", "--detach", "--port", port, "--server.dashboard_port", "0")
    started = await asyncio.to_thread(wunder, tmp_path, *start)
    assert started.returncode == 0, started.stdout + started.stderr
    assert "sign in    admin / " in started.stdout
    found = re.search(r"process    (\d+), log (\S+);", started.stdout)
    assert found is not None, started.stdout
    process = psutil.Process(int(found[1]))
    family = [process, *process.children(recursive=True)]
    password = re.search(r"admin / (\S+)", started.stdout)
    assert password is not None
    assert password[1] not in await asyncio.to_thread(Path(found[2]).read_text)

    again = await asyncio.to_thread(wunder, tmp_path, *start)
    assert again.returncode == 2
    assert f"process {process.pid} already serves" in again.stderr

    async with Follower(f"http://127.0.0.1:{port}", API_KEY, "stopper") as follower:
        await follower.start("count to 50")
        await follower.until(lambda e: e["event"] == "llm_output_delta")
        stopped = await asyncio.to_thread(wunder, tmp_path, "stop")
    assert stopped.returncode == 0, stopped.stderr
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive, "nothing is left behind"
    assert (await asyncio.to_thread(wunder, tmp_path, "stop")).returncode == 1


async def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    failed = await asyncio.to_thread(
        wunder, tmp_path, "serve", "--detach", "--port", "0", "--storage-url", "postgresql://127.0.0.1:1/nothing"
    )
    assert failed.returncode == 2
    assert "did not start" in failed.stderr
    assert "Postgres" in failed.stderr
