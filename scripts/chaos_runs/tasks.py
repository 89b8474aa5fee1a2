"""The run `tasks`: enqueue, hurt, drain, judge."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from typing import Any

import asyncpg

from actors.settings import SessionsSettings
from scripts.benchmarks.driver import Measured
from scripts.benchmarks.numbers import Numbers, percentiles
from scripts.benchmarks.results import Result, machine, row, started
from scripts.chaos_runs import submit
from scripts.chaos_runs.arena import API_KEY, Arena, Lease, arena
from scripts.chaos_runs.faults import LANES, Faults, Injected
from scripts.chaos_runs.helper import Helper
from scripts.chaos_runs.options import Options
from scripts.chaos_runs.oracles import gather, judge, look_closer

_COLUMNS = ["tasks", "acknowledged", "lost", "altered", "unasked", "unfinished", "ended_wrongly"]
_COLUMNS += ["duplicates_accepted", "ends_missing", "fence_breaches", "records_broken", "numbers_broken"]
_COLUMNS += ["succeeded", "dead", "failed", "executions", "executions_per_task", "tasks_whose_owner_died"]
_COLUMNS += ["stale_completions_refused", "stale_rounds_refused", "repeated_ends_recognised"]
_COLUMNS += ["effects_safe", "effects_safe_repeated", "overlapping_safe"]
_COLUMNS += ["effects_once", "effects_once_repeated", "overlapping_once", "outcomes_unknown"]
_COLUMNS += ["effects_unseen", "tools_failed", "requests_sent_again"]
_COLUMNS += ["takeovers", "takeover_p50_ms", "takeover_p99_ms"]
_COLUMNS += [f"takeover_after_{kind}_p{share}_ms" for kind in ("kill", "stop", "stall") for share in (50, 99)]
_COLUMNS += ["pools_replaced", "pool_replaced_p50_ms", "pool_replaced_max_ms", "leases_lost"]
_COLUMNS += [f"faults_{kind}" for kind in LANES]
_COLUMNS += ["drain_s", "drain_per_s", "wall_s"]
_PROGRESS_S = 10.0
_QUIET_S = 2.0
_LOG_LINES = 500
_SHORT = 1000
"""Tasks below which a run is too short for more than one fault of a kind."""
_REPLACED_S = 30.0
_DATABASE_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class ChaosResult(Result, kw_only=True):
    """A `Result` with the faults, their seed, what the supervisor wrote at the end, and what the suspects look like."""

    seed: int
    faults: list[Injected]
    options: Options
    red: bool
    log: list[str]
    evidence: dict[str, Any]


def say(text: str) -> None:
    print(text, flush=True)


def tasks(options: Options) -> ChaosResult:
    """One run."""
    about, began = machine(), time.monotonic()
    say(f"seed {options.seed}: {options.tasks} tasks, {options.pools} pools of {options.slots}")
    with arena(options) as made:
        say(f"the service is ready after {time.monotonic() - began:.1f} s")
        run = _Run(made)
        numbers, problems = asyncio.run(run.run())
        log = made.log_tail(_LOG_LINES)
    numbers["wall_s"] = time.monotonic() - began
    label = "with the fence" if options.fenced else "WITHOUT THE FENCE"
    return ChaosResult(
        scenario="chaos-tasks" if options.fenced else "chaos-tasks-without-fence",
        columns=_COLUMNS,
        rows=[row(label, [Measured(numbers, problems)])],
        settings=made.settings,
        started=started(),
        machine=about,
        command=sys.argv,
        notes=[f"seed {options.seed}; leases of {options.lease_s:g} s; every other task's tool must not be repeated"],
        seed=options.seed,
        faults=run.faults.injected,
        options=options,
        red=numbers["duplicates_accepted"] > 0,
        log=log,
        evidence=run.evidence,
    )


class _Run:
    """The part of a run in which the service works."""

    def __init__(self, made: Arena) -> None:
        self._arena = made
        self._options = made.options
        self.faults = Faults(made, say)
        self.evidence: dict[str, Any] = {}
        self._sent: dict[str, Any] = {"acknowledged": 0, "resent": 0, "done": False}
        self._deadline_s = time.monotonic() + made.options.deadline_s

    async def run(self) -> tuple[Numbers, list[str]]:
        arena, options = self._arena, self._options
        work = submit.Work(
            urls=arena.urls, world=arena.world_url, api_key=API_KEY, tasks=options.tasks, ledger=str(arena.acknowledged)
        )
        client = await asyncio.to_thread(Helper, "submit", work)
        try:
            begin = time.monotonic()
            hurting = asyncio.create_task(self.faults.run())
            listening = asyncio.create_task(self._listen(client))
            problems = await self._until_drained()
            seconds = time.monotonic() - begin
            self.faults.over.set()
            await hurting
            listening.cancel()
        finally:
            await asyncio.to_thread(client.stop)
        problems += await self._until_quiet()
        verdict = judge(await gather(arena, self.faults.hits), arena, SessionsSettings().max_crashes)
        numbers = {**verdict.numbers, "drain_s": seconds, "drain_per_s": options.tasks / seconds}
        numbers["requests_sent_again"] = self._sent["resent"]
        numbers |= self._pools(arena.leases(), problems)
        problems += verdict.problems + self._too_gentle(numbers)
        self.evidence = await look_closer(arena, verdict.suspects)
        return numbers, problems

    async def _listen(self, client: Helper) -> None:
        while not self._sent["done"]:
            self._sent = await asyncio.to_thread(client.hear)

    async def _until_drained(self) -> list[str]:
        """Until every task is acknowledged and has ended, or the deadline."""
        shown_s = time.monotonic()
        while time.monotonic() < self._deadline_s:
            states = await self._states()
            if time.monotonic() - shown_s > _PROGRESS_S:
                shown_s = time.monotonic()
                say(f"    acknowledged {self._sent['acknowledged']}, {dict(states or {})}")
            if self._sent["done"] and states is not None and not states["queued"] + states["running"]:
                return []
            await asyncio.sleep(0.5)
        return [f"not drained within {self._options.deadline_s:g} s"]

    async def _states(self) -> Counter[str] | None:
        """Tasks by state; None while the database is away."""
        with contextlib.suppress(*_DATABASE_AWAY):
            connection = await self._arena.connect()
            try:
                rows = await connection.fetch("SELECT status, count(*) AS n FROM tasks GROUP BY status", timeout=5)
                return Counter({row["status"]: row["n"] for row in rows})
            finally:
                await connection.close(timeout=5)
        return None

    async def _until_quiet(self) -> list[str]:
        """Those that were stopped have woken: what they still had to say has arrived, and every pool is there again."""
        connection = await self._arena.connect()
        try:
            deadline = time.monotonic() + _REPLACED_S
            before, since = -1, time.monotonic()
            while time.monotonic() < deadline:
                asked = await connection.fetchval("SELECT count(*) FROM chaos_ends")
                if asked != before:
                    before, since = asked, time.monotonic()
                pools = len(self._arena.pools())
                if pools >= self._options.pools and time.monotonic() - since > _QUIET_S:
                    return []
                await asyncio.sleep(0.2)
            return [f"{pools} of {self._options.pools} pools live {_REPLACED_S:g} s after the last fault"]
        finally:
            await connection.close()

    def _pools(self, leases: list[Lease], problems: list[str]) -> Numbers:
        """How long a node was without its killed pool, and how often a pool that lived had to become a new owner."""
        first: dict[int, Lease] = {}
        for lease in leases:
            first.setdefault(lease.pid, lease)
        waits = []
        for killed in (fault for fault in self.faults.injected if fault.kind == "kill"):
            pid = int(killed.target.rpartition(" ")[2].rstrip(")"))
            later = [one.at_us for one in first.values() if one.number == first[pid].number]
            later = [at_us for at_us in later if at_us > first[pid].at_us]
            if later:
                waits.append((min(later) - killed.at_us) * 1000)
            else:
                problems.append(f"{killed.target} was killed and never replaced")
        found = {"pools_replaced": float(len(waits)), "leases_lost": float(len(leases) - len(first))}
        return found | percentiles("pool_replaced", waits, (50,))

    def _too_gentle(self, numbers: Numbers) -> list[str]:
        """A run that did not hurt proves nothing."""
        happened = Counter(fault.kind for fault in self.faults.injected)
        numbers |= {f"faults_{kind}": happened[kind] for kind in LANES}
        short = self._options.tasks < _SHORT
        wanted = {kind: 1 if short else LANES[kind].least for kind in self._options.faults}
        missing = [
            f"{kind}: {happened[kind]} of at least {least} (more tasks give it more time)"
            for kind, least in wanted.items()
            if happened[kind] < least
        ]
        if "stall" in wanted and self._options.fenced and not numbers["stale_completions_refused"]:
            missing.append("no stale completion was refused: the faults did not bite")
        return missing


def summary(result: ChaosResult) -> str:
    """What is decided, in a line."""
    if result.options.fenced:
        broken = any(one.problems for one in result.rows)
        return "BROKEN: see the problems above" if broken else "kept: every promise"
    if result.red:
        return "red, as it has to be: without the fence there are duplicates"
    return "GREEN WITHOUT THE FENCE: this harness would not have seen a duplicate"


def exit_code(result: ChaosResult) -> int:
    """0 if every promise was kept; of the control, if it went red."""
    if result.options.fenced:
        return 1 if any(one.problems for one in result.rows) else 0
    return 0 if result.red else 1
