"""Where the time goes: py-spy on the gateway and on one session actor during a run whose numbers do not count."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from scripts.benchmarks.driver import measure
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.results import FOLDER, started
from scripts.benchmarks.server import Bench, end_process

_PY_SPY = Path(sys.executable).parent / "py-spy"
_RATE = 200
_TOP = 25


class Profiler:
    """Records stacks of Python code that is on the CPU."""

    def __init__(self, bench: Bench, seconds: float, name: str) -> None:
        self._bench = bench
        self._seconds = max(2.0, seconds - 3.0)
        self._name = name

    def run(self, plan: Plan) -> None:
        """Run the plan once more with py-spy attached; writes folded stacks and prints the top."""
        if not _PY_SPY.exists():
            print("no profile: py-spy is not installed", flush=True)
            return
        paths: dict[str, Path] = {}
        recorders: list[subprocess.Popen[bytes]] = []

        def record() -> None:
            time.sleep(2.0)
            for kind in ("gateway", "session actors"):
                pids = self._bench.processes.of_kind(kind)
                pid = max(pids, key=_cpu)
                paths[kind] = FOLDER / f"{started()}-profile-{self._name}-{kind.replace(' ', '-')}.folded"
                recorders.append(recorder(pid, paths[kind], self._seconds))

        FOLDER.mkdir(exist_ok=True)
        measure(self._bench, plan, meanwhile=record)
        for recorder in recorders:
            recorder.wait(60)
            end_process(recorder, 5.0)
        for kind, path in paths.items():
            print(f"== {kind}: {path.name}\n{summary(path)}", flush=True)


def recorder(pid: int, path: Path, seconds: float) -> subprocess.Popen[bytes]:
    """py-spy on one process for some seconds, as folded stacks."""
    options = ["-r", str(_RATE), "-d", f"{seconds:.0f}", "-f", "raw", "-o", str(path), "--native"]
    return subprocess.Popen(
        [str(_PY_SPY), "record", "-p", str(pid), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def summary(path: Path) -> str:
    """The functions with the largest share of samples: on top of the stack, and anywhere in it."""
    own: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    total = 0
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            anywhere[frame] += int(count)
    if not total:
        return "no samples"
    lines = [f"{total} samples at {_RATE}/s", "self:"]
    lines += [f"  {count / total:6.1%}  {frame}" for frame, count in own.most_common(_TOP)]
    lines += ["with what it calls:"]
    lines += [f"  {count / total:6.1%}  {frame}" for frame, count in anywhere.most_common(_TOP * 2)]
    return "\n".join(lines)


def _cpu(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])
