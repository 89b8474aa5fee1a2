"""The scenarios: which cases each one measures, on which servers, and which numbers its table shows."""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec

from scripts.benchmarks.driver import Measured, client, cores, measure, settle, warm_up
from scripts.benchmarks.plan import Plan, Script, Transport
from scripts.benchmarks.processes import Kind, memory_of
from scripts.benchmarks.profile import Profiler
from scripts.benchmarks.results import Result, Row, machine, row, started
from scripts.benchmarks.server import Bench, ServerOptions, Storage, running

_DELAYS = ["delta_p50_ms", "delta_p95_ms", "delta_p99_ms"]
_CPU = ["cpu_s_per_1000_server", "cpu_s_per_1000_gateway", "cpu_s_per_1000_session actors"]
_CPU += ["cpu_s_per_1000_directory", "cpu_s_per_1000_raylet", "cpu_s_per_1000_gcs", "cpu_s_per_1000_other Ray"]
_CPU += ["cpu_s_per_1000_postgres", "cores_server", "cores_client", "cores_upstream", "cores_all"]
_CLIENT = ["cores_others", "client_lag_p50_ms", "client_lag_p99_ms"]
_MEMORY = ["server_uss_mb", "gateway_rss_mb", "session actors_rss_mb", "session_actors"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The command line."""

    streams: list[int]
    rate: float
    seconds: float
    concurrency: list[int]
    connections: int
    idle_seconds: float
    values: list[int]
    runs: int
    storage: Storage
    transport: Transport
    multiplex: int
    settings: dict[str, Any]
    profile: bool
    parts: list[str]
    tasks: int
    long_tasks: int

    def server(self, **settings: Any) -> ServerOptions:
        more = {key.replace("__", "."): value for key, value in settings.items()}
        return ServerOptions(storage=self.storage, settings={**more, **self.settings})


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def stream(options: Options) -> Result:
    """N streams at once: what is added to each delta and to whole turns, and what it costs."""
    rows, about = [], machine()
    with running(options.server()) as bench:
        say(f"server ready after {bench.start_s:.1f} s")
        warm_up(bench)
        for count in options.streams:
            rows.append(row(f"{count} streams", repeat(bench, stream_plan(options, bench, count), options.runs)))
            if options.profile:
                Profiler(bench, options.seconds, f"stream-{count}").run(stream_plan(options, bench, count))
        settings = bench.settings
    turn = ["turn_p50_ms", "turn_p95_ms", "before_p50_ms", "after_p50_ms", "events_per_s"]
    return result("stream", [*_DELAYS, *turn, *_CPU, *_CLIENT, *_MEMORY], rows, settings, about)


def stream_plan(options: Options, bench: Bench, count: int) -> Plan:
    script = Script(deltas=max(1, int(options.rate * options.seconds)), rate=options.rate)
    return Plan(
        kind="stream",
        url=bench.url,
        script=script,
        streams=count,
        transport=options.transport,
        multiplex=options.multiplex,
    )


def turn(options: Options) -> Result:
    """Short turns, as many at a time as `concurrency`: acceptance, first event, what is added to a whole turn."""
    rows, about = [], machine()
    with running(options.server()) as bench:
        warm_up(bench)
        for count in options.concurrency:
            turns = 200 if count == 1 else max(10, 2000 // count)
            plan = Plan(kind="turn", url=bench.url, script=Script(deltas=5), streams=count, turns=turns)
            plan = msgspec.structs.replace(plan, transport=options.transport)
            rows.append(row(f"{count} at once", repeat(bench, plan, options.runs)))
            if options.profile:
                Profiler(bench, 6.0, f"turn-{count}").run(plan)
        settings = bench.settings
    for one in rows:
        for run in one.runs:
            run.numbers["turns_per_s"] = run.numbers["turns"] / run.numbers["seconds"]
    rows = [row(one.label, one.runs) for one in rows]
    names = [f"{name}_p{share}_ms" for name in ("accepted", "first", "turn") for share in (50, 95, 99)]
    columns = [*names, "new_p50_ms", "new_p95_ms", "after_p50_ms", "turns_per_s", "cores_server", *_CLIENT]
    return result("turn", columns, rows, settings, about)


def cancel(options: Options) -> Result:
    """From sending a cancel to the terminal event: alone, under load, and of all streams at once."""
    rows, about = [], machine()
    with running(options.server()) as bench:
        warm_up(bench)
        for count in options.streams:
            script = Script(deltas=int(options.rate * 300), rate=options.rate)
            plan = Plan(kind="cancel", url=bench.url, script=script, streams=count, turns=50)
            rows.append(row(f"among {count}", repeat(bench, plan, options.runs)))
        settings = bench.settings
    names = [f"{name}_{part}_ms" for name in ("cancel", "all_at_once") for part in ("p50", "p99", "max")]
    return result("cancel", [*names, "probes", "cores_server", "cores_all", *_CLIENT], rows, settings, about)


def idle(options: Options) -> Result:
    """Memory of the whole at start, of each idle WebSocket, and CPU while nothing happens."""
    runs, about, kinds = [], machine(), []
    for number in range(options.runs):
        with running(options.server()) as bench:
            settle(bench)
            kinds.append(bench.processes.kinds())
            runs.append(_idle_run(bench, options, bench.start_s))
            settings = bench.settings
        say(f"run {number + 1} of {options.runs} done")
    columns = ["start_s", "start_uss_mb", "connections", "gateway_before_rss_mb", "gateway_after_rss_mb"]
    columns += ["kb_per_socket_rss", "kb_per_socket_uss", "connects_per_s", "cores_server_empty", "cores_server"]
    columns += ["cores_gateway", "cores_session actors", "cores_raylet", "cores_gcs", "cores_other Ray", "cores_others"]
    found = result("idle", columns, [row(f"{options.connections} sockets", runs)], settings, about)
    found.notes += [f"at start, {name}: {_kind(kind)}" for name, kind in sorted(kinds[-1].items())]
    return found


def _kind(kind: Kind) -> str:
    return f"{kind.count} processes, {kind.rss_mb:.0f} MB RSS, {kind.uss_mb:.0f} MB USS, {kind.cpu_s:.1f} CPU-s so far"


def _idle_run(bench: Bench, options: Options, start_s: float) -> Measured:
    kinds = bench.processes.kinds()
    server_mb = sum(kind.uss_mb for name, kind in kinds.items() if name not in ("upstream", "postgres"))
    numbers = {"start_s": start_s, "start_uss_mb": server_mb}
    numbers["cores_server_empty"] = cores(bench, options.idle_seconds)["cores_server"]
    with client(bench, Plan(kind="idle", url=bench.url, connections=options.connections)) as made:
        (gateway,) = bench.processes.of_kind("gateway")
        before = memory_of(gateway)
        made.tell("measure")
        made.hear("measured")
        time.sleep(3.0)
        after = memory_of(gateway)
        numbers |= cores(bench, options.idle_seconds)
        made.tell("report")
        report = made.hear("report")
        made.tell("end")
    numbers |= report["numbers"]
    numbers |= {"gateway_before_rss_mb": before.rss_mb, "gateway_after_rss_mb": after.rss_mb}
    numbers["connects_per_s"] = options.connections / numbers["seconds"]
    numbers["kb_per_socket_rss"] = (after.rss_mb - before.rss_mb) * 1024 / options.connections
    numbers["kb_per_socket_uss"] = (after.uss_mb - before.uss_mb) * 1024 / options.connections
    return Measured(numbers, report["problems"])


def actors(options: Options) -> Result:
    """The same load with different `sessions.max_actors_per_node`, each on a fresh server."""
    rows, about, settings = [], machine(), {}
    count = options.streams[0]
    for value in options.values:
        say(f"at most {value} session actors")
        slow = {"gateway__owner_timeout_s": 110.0, "gateway__request_timeout_s": 120.0}
        with running(options.server(sessions__max_actors_per_node=value, **slow)) as bench:
            warm_up(bench)
            plan = msgspec.structs.replace(stream_plan(options, bench, count), timeout_s=120.0, warm_at_once=4)
            rows.append(row(f"{value} actors, {count} streams", repeat(bench, plan, options.runs)))
            settings = bench.settings
    return result("actors", [*_DELAYS, "turn_p50_ms", *_CPU, *_CLIENT, *_MEMORY], rows, settings, about)


SCENARIOS = {"stream": stream, "turn": turn, "cancel": cancel, "idle": idle, "actors": actors}


def repeat(bench: Bench, plan: Plan, runs: int) -> list[Measured]:
    """The same plan several times, each with a new client and new sessions."""
    found = []
    for number in range(runs):
        measured = measure(bench, plan)
        numbers = measured.numbers
        name = {"stream": "delta", "turn": "turn", "cancel": "cancel", "idle": "delta"}[plan.kind]
        p50, p99 = (numbers.get(f"{name}_p{share}_ms", float("nan")) for share in (50, 99))
        shares = [f"{numbers[f'cores_{kind}']:.2f} {kind}" for kind in ("server", "client", "others")]
        wrong = f"PROBLEMS: {measured.problems}" if measured.problems else "correct"
        say(f"{plan.kind} {plan.streams}, run {number + 1}: {name} p50 {p50:.1f} p99 {p99:.1f} ms, {wrong}")
        say(f"    cores: {', '.join(shares)}")
        found.append(measured)
        time.sleep(1.0)
    return found


def result(name: str, columns: list[str], rows: list[Row], settings: dict[str, Any], about: dict[str, Any]) -> Result:
    return Result(
        scenario=name,
        columns=columns,
        rows=rows,
        settings=settings,
        started=started(),
        machine=about,
        command=["scripts/bench", *sys.argv[1:]],
    )
