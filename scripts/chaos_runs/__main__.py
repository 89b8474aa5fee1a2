"""The command line: `scripts/chaos RUN`."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks.results import FOLDER
from scripts.chaos_runs.options import FAULTS, Options
from scripts.chaos_runs.tasks import ChaosResult, exit_code, summary, tasks

RUNS: dict[str, Callable[[Options], ChaosResult]] = {"tasks": tasks}


def main() -> int:
    """0 if every promise was kept (of a control: if it showed that one was broken)."""
    signal.signal(signal.SIGTERM, _stop)
    arguments = _parser().parse_args()
    result = RUNS[arguments.run](_options(arguments))
    path = result.save(arguments.results)
    print(f"\n{result.table()}\n\n{path}\n{summary(result)}", flush=True)
    return exit_code(result)


def _stop(number: int, frame: Any) -> None:
    """Leave as an exception, so that everything that was started ends; once, not while that goes on."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise SystemExit(128 + number)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        tasks=arguments.tasks,
        seed=arguments.seed if arguments.seed is not None else secrets.randbelow(1_000_000),
        pools=arguments.pools,
        slots=arguments.slots,
        hold_s=arguments.hold,
        lease_s=arguments.lease,
        pace=arguments.pace,
        deadline_s=arguments.deadline,
        faults=arguments.faults,
        fenced=arguments.without != "fence",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("run", choices=list(RUNS))
    parser.add_argument("--tasks", type=_within(1, 200_000), default=10_000, help="tasks to enqueue")
    parser.add_argument("--seed", type=_within(0, 2**63), help="draws the faults; a new one each time if left out")
    parser.add_argument("--pools", type=_within(1, 16), default=3, help="worker pools")
    parser.add_argument("--slots", type=_within(1, 1000), default=16, help="tasks that a pool runs at a time")
    parser.add_argument("--hold", type=float, default=0.6, help="mean seconds that a tool's effect takes")
    parser.add_argument("--lease", type=float, default=6.0, help="seconds of a lease")
    parser.add_argument("--pace", type=float, default=1.0, help="2 means twice as many faults in the same time")
    parser.add_argument("--deadline", type=float, default=480.0, help="seconds for all tasks to end")
    parser.add_argument("--faults", type=_faults, default=FAULTS, help=f"some of {','.join(FAULTS)}")
    parser.add_argument("--without", choices=["fence"], help="the control: this defence is off, and it has to show")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder for the result")
    return parser


def _within(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected {least} to {most}, got {value}")
        return value

    return number


def _faults(text: str) -> tuple[str, ...]:
    faults = tuple(text.split(","))
    if unknown := set(faults) - set(FAULTS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(FAULTS)}, got {','.join(sorted(unknown))}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
