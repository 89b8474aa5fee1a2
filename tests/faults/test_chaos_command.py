"""`scripts/chaos tasks` in small: it keeps every promise, and without the fence it shows duplicates."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--tasks", "300", "--pools", "2", "--slots", "8", "--seed", "1", "--faults", "kill,stall,restart"]
TIMEOUT_S = 150.0


@pytest.mark.parametrize("without", [(), ("--without", "fence")], ids=["fenced", "control"])
async def test_it_is_green_with_the_fence_and_red_without(without: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.chaos_runs", "tasks", *SMALL, *without, "--results", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, said.decode()
    (saved,) = tmp_path.glob("*.json")  # noqa: ASYNC240
    result = msgspec.json.decode(saved.read_bytes())
    numbers = result["rows"][0]["runs"][0]["numbers"]
    assert result["seed"] == 1
    assert numbers["acknowledged"] == 300
    assert numbers["lost"] == 0
    if without:
        assert numbers["duplicates_accepted"] > 0
    else:
        assert (numbers["duplicates_accepted"], numbers["fence_breaches"]) == (0, 0)
        assert numbers["stale_completions_refused"] > 0
