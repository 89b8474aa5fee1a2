"""SIGTERM to the benchmark harness ends what it has started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HARNESS = """
import contextlib, signal, sys
from scripts.benchmarks import __main__ as harness

def scenario(options):
    with contextlib.ExitStack() as stack:
        stack.callback(print, "cleaned", flush=True)
        stack.callback(signal.raise_signal, signal.SIGTERM)  # a second one, while things end
        print("started", flush=True)
        while True:
            signal.pause()

harness.SCENARIOS["turn"] = scenario
sys.argv = ["scripts/bench", "turn"]
sys.exit(harness.main())
"""


def test_it_ends_what_it_started() -> None:
    with subprocess.Popen([sys.executable, "-c", HARNESS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = iter(process.stdout)
        assert "started\n" in said
        process.send_signal(signal.SIGTERM)
        assert list(said) == ["cleaned\n"]
        assert process.wait(30) == 128 + signal.SIGTERM
