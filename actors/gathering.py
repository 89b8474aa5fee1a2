"""Calls that travel together: what gathers while one is under way is the next one.

Alone a call waits for nobody; under load one serves many, and they arrive in the order in which they were asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from actors.errors import ServiceUnavailable, WunderError

T = TypeVar("T")
R = TypeVar("R")


class Gathering(Generic[T, R]):
    """`send` answers at most `most` items at a time, in their order.

    An error of `send` is everybody's who was in it, unless `apart` says that it may be one item's fault: then each is
    sent alone.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        most: int = 500,
        apart: Callable[[WunderError], bool] = lambda _: False,
    ) -> None:
        self._name = name
        self._send = send
        self._most = most
        self._apart = apart
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None
        self.calls = 0

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, item: T) -> R:
        """The item's answer."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)
        return await future

    async def stop(self) -> None:
        """End the call that is under way; whoever waits gets `ServiceUnavailable`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        gathered: list[tuple[T, asyncio.Future[R]]] = []
        try:
            while self._waiting:
                gathered, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._answer(gathered)
        finally:
            self._task = None
            _fail([*gathered, *self._waiting], ServiceUnavailable("the process stops"))
            self._waiting = []

    async def _answer(self, gathered: list[tuple[T, asyncio.Future[R]]]) -> None:
        self.calls += 1
        try:
            answers = await self._send([item for item, _ in gathered])
        except WunderError as error:
            if len(gathered) > 1 and self._apart(error):
                for one in gathered:
                    await self._answer([one])
            else:
                _fail(gathered, error)
            return
        for (_, future), answer in zip(gathered, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _fail(gathered: list[tuple[T, asyncio.Future[R]]], error: WunderError) -> None:
    for _, future in gathered:
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever waited may have left
