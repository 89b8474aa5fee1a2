"""Oracle O2, the world that tools act on: a process of its own that writes down each call, when it began and ended.

`/once/N` and `/safe/N` are the effects of task N, the second by a tool that may be repeated. An effect takes a time
that depends on the seed and on N only. Lines of the ledger: {call, tool, label, key, began_s, ended_s}, once at each
end.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

import msgspec
from aiohttp import web

from scripts.chaos_runs.helper import say


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the world is told."""

    ledger: str
    seed: int
    hold_s: float


class Call(msgspec.Struct, kw_only=True):
    """One call; without an end it was still under way."""

    call: int
    tool: str
    label: int
    key: str
    began_s: float
    ended_s: float | None = None


class World:
    """Answers, and keeps the ledger."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._numbers = itertools.count()
        self._file = Path(work.ledger).open("ab", buffering=0)  # noqa: SIM115 - until the process ends

    async def act(self, request: web.Request) -> web.Response:
        label = int(request.match_info["label"])
        tool, key = request.match_info["tool"], request.query.get("key", "")
        call = Call(call=next(self._numbers), tool=tool, label=label, key=key, began_s=time.monotonic())
        self._write(call)
        chance = random.Random(f"{self._work.seed}:{label}")
        await asyncio.sleep(self._work.hold_s * chance.uniform(0.3, 1.7))
        call.ended_s = time.monotonic()
        self._write(call)
        return web.Response(text=f"effect of {label}")

    def _write(self, call: Call) -> None:
        self._file.write(msgspec.json.encode(call) + b"\n")


def read_ledger(path: Path) -> dict[tuple[str, int], list[Call]]:
    """The calls by tool and label, in the order in which they began."""
    calls: dict[int, Call] = {}
    for line in path.read_bytes().splitlines():
        call = msgspec.json.decode(line, type=Call)
        calls[call.call] = call
    found: dict[tuple[str, int], list[Call]] = defaultdict(list)
    for call in calls.values():
        found[call.tool, call.label].append(call)
    return found


async def serve(work: Work) -> None:
    """Until stdin ends."""
    application = web.Application()
    application.router.add_route("*", r"/{tool:once|safe}/{label:\d+}", World(work).act)
    runner = web.AppRunner(application, keepalive_timeout=3600.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    say({"port": runner.addresses[0][1]})
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Work)))
