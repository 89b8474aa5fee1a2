"""What is kept of a benchmark: a JSON file with everything, a plain table for people."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from scripts.benchmarks.driver import Measured
from scripts.benchmarks.numbers import Spread, spreads
from scripts.benchmarks.server import ROOT

FOLDER = ROOT / "bench-results"
_PACKAGES = ("ray", "aiohttp", "msgspec", "uvloop", "asyncpg", "picows")


class Row(msgspec.Struct):
    """One case of a scenario: its runs and what they come to."""

    label: str
    runs: list[Measured]
    numbers: dict[str, Spread]

    @property
    def problems(self) -> list[str]:
        return [problem for run in self.runs for problem in run.problems]


def row(label: str, runs: list[Measured]) -> Row:
    return Row(label, runs, spreads([run.numbers for run in runs]))


class Result(msgspec.Struct, kw_only=True):
    """A scenario's outcome."""

    scenario: str
    columns: list[str]  # the numbers that its table shows
    rows: list[Row]
    settings: dict[str, Any]
    started: str
    machine: dict[str, Any]
    command: list[str]
    notes: list[str] = []

    def table(self) -> str:
        """Markdown that is readable as it is: medians, with the lowest and the highest run in brackets."""
        lines = [["", *(one.label for one in self.rows)]]
        for name in self.columns:
            if any(name in one.numbers for one in self.rows):
                lines.append([name, *(_cell(one.numbers.get(name)) for one in self.rows)])
        lines.append(["runs with problems", *(str(sum(bool(run.problems) for run in one.runs)) for one in self.rows)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        lines.insert(1, ["-" * width for width in widths])
        text = [f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |" for line in lines]
        problems = [f"- {one.label}: {problem}" for one in self.rows for problem in dict.fromkeys(one.problems)]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([*text, "", *notes, *(["", "Problems:", *problems] if problems else [])])

    def save(self, folder: Path = FOLDER) -> Path:
        """Write bench-results/<time>-<scenario>.json."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.started}-{self.scenario}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))
        return path


def started() -> str:
    """The time in a file's name."""
    return time.strftime("%Y%m%d-%H%M%S")


def machine() -> dict[str, Any]:
    """What one has to know to compare two results."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "cpus": os.cpu_count(),
        "cpu": model.partition(":")[2].strip(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "revision": revision(),
        "load_before": list(os.getloadavg()),
    }


def revision() -> str:
    """The commit, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = len(git("status", "--porcelain").splitlines())
    return f"{git('rev-parse', '--short', 'HEAD')}{f' + {changed} changed files' if changed else ''}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.low == spread.high:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)}-{_number(spread.high)})"


def _number(value: float) -> str:
    if value == int(value):
        return f"{int(value)}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
