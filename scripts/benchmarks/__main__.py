"""The command line: `scripts/bench SCENARIO`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Any

import yaml

from scripts.benchmarks.outbox_scenario import outbox
from scripts.benchmarks.results import FOLDER, Result, started
from scripts.benchmarks.scenarios import SCENARIOS as MESSAGES
from scripts.benchmarks.scenarios import Options, say
from scripts.benchmarks.task_scenario import HELD, PARTS, tasks

SCENARIOS = {**MESSAGES, "tasks": tasks, "outbox": outbox}
_STREAMS = {"stream": "1,50,200,300", "cancel": "1,200", "actors": "100"}


def main() -> int:
    """Run one scenario, or all; 1 if anything was not as it should be."""
    signal.signal(signal.SIGTERM, _stop)
    parser = _parser()
    arguments = parser.parse_args()
    names = list(SCENARIOS) if arguments.scenario == "all" else [arguments.scenario]
    say(f"load of the machine before: {' '.join(f'{load:.2f}' for load in os.getloadavg())}")
    results = []
    for name in names:
        say(f"== {name}")
        result = SCENARIOS[name](_options(arguments, name))
        path = result.save()
        print(f"\n{result.table()}\n\n{path}\n", flush=True)
        results.append(result)
    if arguments.scenario == "all":
        path = FOLDER / f"{started()}-report.md"
        path.write_text(report(results))
        print(path)
    return 1 if any(row.problems for result in results for row in result.rows) else 0


def report(results: list[Result]) -> str:
    """Everything as one Markdown page."""
    about = results[0].machine
    lines = ["# Benchmark", "", "Medians of the runs, with the lowest and the highest in brackets.", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    for result in results:
        lines += ["", f"## {result.scenario}", "", f"`{' '.join(result.command)}`", "", result.table()]
    lines += ["", "## Settings", "", "```yaml", yaml.safe_dump(results[0].settings).strip(), "```"]
    return "\n".join([*lines, ""])


def _stop(number: int, frame: Any) -> None:
    """Leave as an exception, so that the server and all else that was started ends; once, not while that goes on."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise SystemExit(128 + number)


def _options(arguments: argparse.Namespace, name: str) -> Options:
    return Options(
        streams=arguments.streams or _numbers(_STREAMS.get(name, "1")),
        rate=arguments.rate,
        seconds=arguments.seconds,
        concurrency=arguments.concurrency,
        connections=arguments.connections,
        idle_seconds=arguments.idle_seconds,
        values=arguments.values,
        runs=arguments.runs,
        storage=arguments.storage,
        transport=arguments.transport,
        multiplex=arguments.multiplex,
        settings=dict(arguments.set),
        profile=arguments.profile,
        parts=arguments.parts,
        tasks=arguments.tasks,
        long_tasks=arguments.long_tasks,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("--streams", type=_numbers, help="streams at once, such as 1,50 (stream, cancel, actors)")
    parser.add_argument("--rate", type=float, default=20.0, help="deltas per second of a stream")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an answer (stream, actors)")
    parser.add_argument("--concurrency", type=_numbers, default=[1, 100], help="turns at once (turn)")
    parser.add_argument("--connections", type=_bounded(20_000), default=3000, help="sockets (idle)")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="how long nothing happens (idle)")
    parser.add_argument("--values", type=_numbers, default=[1, 4, 16, 100], help="max_actors_per_node (actors)")
    parser.add_argument("--runs", type=_bounded(100), default=3, help="runs of each case; the median is shown")
    parser.add_argument("--storage", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--transport", choices=["ws", "sse"], default="ws")
    parser.add_argument("--multiplex", type=_bounded(1000), default=1, help="streams on one WebSocket")
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting of the server"
    )
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=f"some of {','.join((*PARTS, HELD))} (tasks)")
    parser.add_argument(
        "--tasks", type=_bounded(1_000_000), default=10_000, help="tasks to drain, deliveries to send (tasks, outbox)"
    )
    parser.add_argument("--long-tasks", type=_bounded(1_000_000), default=60_000, help="tasks of a long drain (tasks)")
    parser.add_argument(
        "--profile", action="store_true", help="one more run with py-spy attached (stream, turn, tasks)"
    )
    return parser


def _numbers(text: str) -> list[int]:
    return [_bounded(5000)(part) for part in text.split(",")]


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - {*PARTS, HELD}:
        raise argparse.ArgumentTypeError(
            f"expected some of {','.join((*PARTS, HELD))}, got {','.join(sorted(unknown))}"
        )
    return parts


def _bounded(most: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"expected 1 to {most}, got {value}")
        return value

    return number


def _setting(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found or "." not in key:
        raise argparse.ArgumentTypeError(f"expected section.key=value, got {text!r}")
    return key, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main())
