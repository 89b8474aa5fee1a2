"""A process beside the service that no fault hits: its work is on its command line, it says and hears lines."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import msgspec

from scripts.benchmarks.server import ROOT, end_process


class Helper:
    """`python -m scripts.chaos_runs.NAME WORK`; the first line that it says is kept as `said`."""

    def __init__(self, name: str, work: msgspec.Struct) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"scripts.chaos_runs.{name}", msgspec.json.encode(work).decode()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said = self.hear()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """The next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended (see its errors above)")
        return msgspec.json.decode(line)

    def stop(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        end_process(self._process, 5.0)


def say(value: Any) -> None:
    """A line of a helper."""
    print(msgspec.json.encode(value).decode(), flush=True)
