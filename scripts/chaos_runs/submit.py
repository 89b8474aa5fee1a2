"""Oracle O1, the client: sends tasks until each is acknowledged, and writes each acknowledgement down, fsynced.

A request that was refused or broke off is sent again with its idempotency key: it may have been recorded all the same.
Says {acknowledged, resent} about once a second, and {..., done: true} when all of them are.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

import aiohttp
import msgspec

from scripts.chaos_runs.effects import ONCE_MODEL
from scripts.chaos_runs.helper import say

_USERS = 50
_AT_ONCE = 24
_PAUSE_S = 0.3
_TIMEOUT = aiohttp.ClientTimeout(total=20.0)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the client is told; task N is sent to one of `urls`, and acts on `world`."""

    urls: tuple[str, ...]
    world: str
    api_key: str
    tasks: int
    ledger: str


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the ledger."""

    label: int
    task_id: str
    session_id: str


def tool_of(label: int) -> str:
    """Every other task acts by a tool that must not be repeated."""
    return "once" if label % 2 else "safe"


def question(world: str, label: int) -> str:
    return f"fetch {world}/{tool_of(label)}/{label}"


class Client:
    """Sends, and keeps the ledger."""

    def __init__(self, work: Work, session: aiohttp.ClientSession) -> None:
        self._work = work
        self._session = session
        self._labels = itertools.count()
        self._lines: asyncio.Queue[Acknowledged] = asyncio.Queue()
        self._file = Path(work.ledger).open("ab")  # noqa: SIM115 - until the process ends
        self.acknowledged = 0
        self.resent = 0

    async def send(self) -> None:
        for label in self._labels:
            if label >= self._work.tasks:
                return
            while not await self._send(label):
                self.resent += 1
                await asyncio.sleep(_PAUSE_S)

    async def _send(self, label: int) -> bool:
        body = {"question": question(self._work.world, label), "user_id": f"chaos-{label % _USERS}"}
        body |= {"idempotency_key": f"chaos-{label}"}
        body |= {"model_name": ONCE_MODEL} if tool_of(label) == "once" else {}
        url = self._work.urls[label % len(self._work.urls)]
        try:
            async with self._session.post(f"{url}/wunder/tasks", json=body) as response:
                if response.status in (429, 500, 502, 503, 504):
                    return False
                answer = await response.json()
                if response.status != 202:
                    raise RuntimeError(f"HTTP {response.status}: {answer}")
        except (aiohttp.ClientError, TimeoutError):
            return False
        data = answer["data"]
        await self._lines.put(Acknowledged(label=label, task_id=data["task_id"], session_id=data["session_id"]))
        return True

    async def keep(self) -> None:
        """Write down what was acknowledged, many at a time; it counts when it is on the disk."""
        while self.acknowledged < self._work.tasks:
            lines = [await self._lines.get()]
            while not self._lines.empty():
                lines.append(self._lines.get_nowait())
            self._file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            self._file.flush()
            await asyncio.to_thread(os.fsync, self._file.fileno())
            self.acknowledged += len(lines)

    async def tell(self) -> None:
        while True:
            say({"acknowledged": self.acknowledged, "resent": self.resent, "done": False})
            await asyncio.sleep(1.0)


async def run(work: Work) -> None:
    """To the last acknowledgement."""
    headers = {"X-API-Key": work.api_key}
    async with aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT) as session:
        client = Client(work, session)
        telling = asyncio.create_task(client.tell())
        await asyncio.gather(client.keep(), *(client.send() for _ in range(_AT_ONCE)))
        telling.cancel()
        say({"acknowledged": client.acknowledged, "resent": client.resent, "done": True})


def read_ledger(path: Path) -> list[Acknowledged]:
    """Every acknowledgement."""
    return [msgspec.json.decode(line, type=Acknowledged) for line in path.read_bytes().splitlines()]


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=Work)))
