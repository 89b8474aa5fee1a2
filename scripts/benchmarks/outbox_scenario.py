"""The scenario `outbox`: many deliveries to slow receivers, beside a plain loop, and with one account that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import msgspec
import uvloop

from actors.channels.webhook_delivery import WEBHOOK, WebhookDelivery
from scripts.benchmarks.driver import Measured
from scripts.benchmarks.numbers import Numbers, percentiles
from scripts.benchmarks.outbox_plan import Mode, ReceiverPlan, SenderPlan, host
from scripts.benchmarks.processes import ProcessTree, machine_cpu_s
from scripts.benchmarks.queue_wunder import open_store
from scripts.benchmarks.results import Result, machine, row
from scripts.benchmarks.scenarios import Options, result, say
from scripts.benchmarks.server import ROOT, end_process, free_port
from storage.outbox_records import NewOutboxItem
from tests.support.postgres import PostgresServer

ACCOUNTS, PEERS = 20, 50
_GROUP = 200
_DELAY_S, _HANG_S = 0.05, 30.0
_SERIAL = 200
_PATIENCE_S = 600.0
_COLUMNS = ["sent_per_s", "seconds", "others_p50_ms", "others_p95_ms", "others_max_ms", "out_of_order"]
_COLUMNS += ["cores_sender", "cores_receiver", "cores_postgres", "cores_others"]


class OutboxCase(msgspec.Struct, frozen=True, kw_only=True):
    """`deliveries` over all accounts; with `hangs` the first account's receiver answers after 30 s."""

    label: str
    mode: Mode = "outbox"
    deliveries: int
    per_account: int = 8
    hangs: bool = False


def outbox(options: Options) -> Result:
    """Each case on a database of its own, on the same Postgres server (fsync on)."""
    about = machine()
    folder = Path(tempfile.mkdtemp(prefix="wunder-bench-"))
    folder.chmod(0o755)
    count = options.tasks
    cases = [
        OutboxCase(label="a plain loop", mode="serial", deliveries=min(_SERIAL, count)),
        OutboxCase(label="outbox, 8 per account", deliveries=count),
        OutboxCase(label="outbox, 8 per account, one hangs", deliveries=count, hangs=True),
        OutboxCase(label="outbox, 32 per account", deliveries=count, per_account=32),
    ]
    server, processes = PostgresServer(folder / "postgres", max_connections=100), ProcessTree()
    try:
        server.start()
        processes.add(server.pids()[0], "postgres")
        rows = [row(c.label, [_say(c, _run(server, processes, c)) for _ in range(options.runs)]) for c in cases]
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)
    found = result("outbox", _COLUMNS, rows, {}, about)
    found.notes += [
        f"{ACCOUNTS} receivers that answer after {_DELAY_S * 1000:g} ms, {PEERS} peers each; one outbox process",
        f"others: from the start until a delivery of an account that does not hang was sent; it hangs {_HANG_S:g} s",
        f"the plain loop claims, sends and records one of {_SERIAL} after the other",
    ]
    return found


def _say(case: OutboxCase, measured: Measured) -> Measured:
    numbers = measured.numbers
    wrong = f"PROBLEMS: {measured.problems}" if measured.problems else "correct"
    say(f"{case.label}: {numbers['sent_per_s']:.0f}/s, others p95 {numbers['others_p95_ms']:.0f} ms, {wrong}")
    return measured


def _run(server: PostgresServer, processes: ProcessTree, case: OutboxCase) -> Measured:
    url, port = server.create_database(), free_port()
    try:
        uvloop.run(_fill(url, port, case.deliveries))
        server.sql("CHECKPOINT")
        receivers = ReceiverPlan(port=port, accounts=ACCOUNTS, delay_s=_DELAY_S, hang_s=_HANG_S if case.hangs else 0.0)
        sender = SenderPlan(url=url, port=port, mode=case.mode, per_account=case.per_account)
        with (
            _process("outbox_receiver", receivers, "receiver", processes),
            _process("outbox_sender", sender, "sender", processes) as go,
        ):
            before, begin, busy = processes.cpu(), time.monotonic(), machine_cpu_s()
            go_us = time.time_ns() // 1000
            go()
            uvloop.run(_until_sent(url, case))
            seconds, after, busy = time.monotonic() - begin, processes.cpu(), machine_cpu_s() - busy
        used = {f"cores_{kind}": (after[kind] - before.get(kind, 0.0)) / seconds for kind in after}
        used["cores_others"] = max(0.0, busy / seconds - sum(used.values()))
        numbers, problems = uvloop.run(_look(url, case, go_us))
        return Measured({**numbers, **used, "seconds": seconds}, problems)
    finally:
        server.sql(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


@contextlib.contextmanager
def _process(module: str, plan: msgspec.Struct, kind: str, processes: ProcessTree) -> Iterator[Callable[[], None]]:
    """A process that has its plan and is ready; what is given lets it go."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"scripts.benchmarks.{module}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    processes.add(process.pid, kind)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin

    def tell(line: str = "go") -> None:
        stdin.write(line + "\n")
        stdin.flush()

    try:
        tell(msgspec.json.encode(plan).decode())
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{module} did not start (see its errors above)")
        yield tell
    finally:
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        end_process(process, 10.0)
        processes.remove(process.pid)


async def _fill(url: str, port: int, count: int) -> None:
    store = open_store(url)
    await store.open()
    await store.migrate()
    for start in range(0, count, _GROUP):
        await store.post_outbox([_item(number, port) for number in range(start, min(count, start + _GROUP))])
    await store.close()


def _item(number: int, port: int) -> NewOutboxItem:
    origin = f"http://{host(number % ACCOUNTS)}:{port}"
    event = msgspec.Raw(b'{"type":"task.succeeded","data":{"answer":"42"}}')
    return NewOutboxItem(
        delivery_id=f"msg_{number:08}",
        channel=WEBHOOK,
        account=origin,
        peer=f"peer-{number // ACCOUNTS % PEERS}",
        body=msgspec.json.encode(WebhookDelivery(url=f"{origin}/hook", event=event)),
        created_us=1,
    )


async def _until_sent(url: str, case: OutboxCase) -> None:
    """Until everything is sent that does not hang."""
    query = "SELECT count(*) FROM outbox WHERE state <> 'sent' AND NOT ($1 AND account LIKE $2)"
    connection, deadline = await asyncpg.connect(url), time.monotonic() + _PATIENCE_S
    try:
        while left := await connection.fetchval(query, case.hangs, f"http://{host(0)}:%"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{left} deliveries were not sent in {_PATIENCE_S:g} s")
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def _look(url: str, case: OutboxCase, go_us: int) -> tuple[Numbers, list[str]]:
    """What the database says: how long it took, and whether each was sent once and in its order."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT account, peer, seq, attempt, claimed_us, finished_us FROM outbox WHERE state = 'sent' "
            "ORDER BY line, seq"
        )
    finally:
        await connection.close()
    others = [row for row in rows if not (case.hangs and row["account"].startswith(f"http://{host(0)}:"))]
    took_ns = [(row["finished_us"] - go_us) * 1000 for row in others]
    pairs = itertools.pairwise(others)
    wrong = sum(
        (a["account"], a["peer"]) == (b["account"], b["peer"]) and b["claimed_us"] < a["finished_us"] for a, b in pairs
    )
    again = sum(row["attempt"] != 1 for row in others)
    problems = [f"{wrong} began before the one in front was done"] if wrong else []
    problems += [f"{again} were sent more than once"] if again else []
    seconds = max(took_ns) / 1e9
    return {**percentiles("others", took_ns), "sent_per_s": len(others) / seconds, "out_of_order": wrong}, problems
