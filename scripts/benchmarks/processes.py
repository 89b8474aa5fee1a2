"""Processes that the benchmark has started, by kind: their CPU seconds and memory, and their end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")
_ACTORS = {"Gateway": "gateway", "SessionActor": "session actors", "WorkerPool": "pools", "Outbox": "outboxes"}
_ACTORS |= {"Directory": "directory", "Janitor": "janitor"}
_PROC = Path("/proc")


class Memory(msgspec.Struct, frozen=True):
    """Megabytes: resident, and what only this process has."""

    rss_mb: float = 0.0
    uss_mb: float = 0.0


class Kind(msgspec.Struct):
    """All processes of one kind at one moment."""

    count: int = 0
    cpu_s: float = 0.0
    rss_mb: float = 0.0
    uss_mb: float = 0.0


def kind_of(command: str) -> str:
    """What a process of Ray or of Wunder is, from its command line."""
    if found := re.match(r"ray::(\w+)", command):
        return _ACTORS.get(found[1], "other Ray")
    if "gcs_server" in command:
        return "gcs"
    if "/raylet/raylet" in command:
        return "raylet"
    if "postgres" in command.partition(" ")[0]:
        return "postgres"
    return "supervisor" if " serve " in command else "other Ray"


class ProcessTree:
    """The processes under some roots, each root with a kind ("" means by command line)."""

    def __init__(self) -> None:
        self._roots: dict[int, str] = {}
        self._seen: dict[int, tuple[int, str]] = {}

    def add(self, pid: int, kind: str = "") -> None:
        self._roots[pid] = kind

    def remove(self, pid: int) -> None:
        self._roots.pop(pid, None)

    def pids(self) -> dict[int, str]:
        """Every living process with its kind."""
        children: dict[int, list[int]] = {}
        for entry in _PROC.iterdir():
            if entry.name.isdigit() and (stat := _stat(int(entry.name))):
                children.setdefault(int(stat[1]), []).append(int(entry.name))
        found: dict[int, str] = {}
        todo = list(self._roots.items())
        while todo:
            pid, kind = todo.pop()
            stat = _stat(pid)
            if stat and stat[0] != "Z":
                found[pid] = kind or kind_of(_command(pid))
                self._seen[pid] = (int(stat[19]), found[pid])
                todo.extend((child, kind) for child in children.get(pid, ()))
        return found

    def cpu(self) -> dict[str, float]:
        """CPU seconds by kind, of the processes that live."""
        used: dict[str, float] = {}
        for pid, kind in self.pids().items():
            if stat := _stat(pid):
                used[kind] = used.get(kind, 0.0) + (int(stat[11]) + int(stat[12])) / _TICKS
        return used

    def kinds(self) -> dict[str, Kind]:
        """Count, CPU and memory by kind (reading memory costs CPU: not while measuring)."""
        kinds: dict[str, Kind] = {}
        for pid, name in self.pids().items():
            kind, stat, memory = kinds.setdefault(name, Kind()), _stat(pid), memory_of(pid)
            if stat:
                kind.count += 1
                kind.cpu_s += (int(stat[11]) + int(stat[12])) / _TICKS
                kind.rss_mb += memory.rss_mb
                kind.uss_mb += memory.uss_mb
        return kinds

    def of_kind(self, wanted: str) -> list[int]:
        return [pid for pid, kind in self.pids().items() if kind == wanted]

    def end_rest(self, spare: tuple[str, ...] = ()) -> int:
        """Kill what was seen and still lives (the same process, by its start time); how many there were."""
        rest = [pid for pid, (started, kind) in self._seen.items() if kind not in spare and _lives(pid, started)]
        for pid in rest:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while any(_lives(pid, self._seen[pid][0]) for pid in rest) and time.monotonic() < deadline:
            time.sleep(0.05)
        return len(rest)


def machine_cpu_s() -> float:
    """CPU seconds that the whole machine has been busy."""
    user, nice, system, _, _, irq, soft_irq, steal = (_PROC / "stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, soft_irq, steal))) / _TICKS


def memory_of(pid: int) -> Memory:
    """Resident and private memory of a process."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return Memory()
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return Memory(sizes["Rss"] / 1024, (sizes["Private_Clean"] + sizes["Private_Dirty"]) / 1024)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty if there is no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _lives(pid: int, started: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z" and int(stat[19]) == started


def _command(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
