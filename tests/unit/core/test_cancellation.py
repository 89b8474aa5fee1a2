"""Cancelling a turn is an event; cancelling the task that waits is something else."""

from __future__ import annotations

import asyncio

import pytest

from actors.cancellation import CancellationToken, Cancelled


class Sleeper:
    """Something to guard: notes that it began and that it has ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = False

    async def run(self) -> str:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended = True
        return "never"


def test_callbacks_run_once_and_in_order() -> None:
    token, seen = CancellationToken(), []
    token.add_callback(lambda: seen.append("a"))
    remove = token.add_callback(lambda: seen.append("b"))
    token.add_callback(lambda: seen.append("c"))
    remove()
    remove()
    token.cancel("interrupted")
    token.cancel("cancelled")
    assert (seen, token.reason, token.cancelled) == (["a", "c"], "interrupted", True)


def test_a_callback_that_comes_late_runs_at_once() -> None:
    token, seen = CancellationToken(), []
    token.cancel()
    remove = token.add_callback(lambda: seen.append("late"))
    remove()
    token.cancel()
    assert seen == ["late"]
    with pytest.raises(Cancelled, match="cancelled"):
        token.raise_if_cancelled()


async def test_a_guard_gives_the_result_and_leaves_nothing_behind() -> None:
    token = CancellationToken()

    async def answer() -> int:
        return 42

    assert await token.guard(answer()) == 42
    assert not token._callbacks


async def test_a_guard_passes_errors_on() -> None:
    token = CancellationToken()

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await token.guard(fail())
    assert not token._callbacks


async def test_a_cancelled_token_ends_what_is_guarded_before_it_is_told() -> None:
    token, sleeper = CancellationToken(), Sleeper()
    waiting = asyncio.ensure_future(token.guard(sleeper.run()))
    await sleeper.began.wait()
    token.cancel("interrupted")
    with pytest.raises(Cancelled, match="interrupted"):
        await waiting
    assert sleeper.ended


async def test_a_cancelled_task_is_not_a_cancelled_turn() -> None:
    token, sleeper = CancellationToken(), Sleeper()
    waiting = asyncio.ensure_future(token.guard(sleeper.run()))
    await sleeper.began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (sleeper.ended, token.cancelled, token._callbacks) == (True, False, {})


async def test_a_task_cancelled_together_with_its_token_ends_as_a_task() -> None:
    token, sleeper = CancellationToken(), Sleeper()
    waiting = asyncio.ensure_future(token.guard(sleeper.run()))
    await sleeper.began.wait()
    token.cancel()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sleeper.ended


async def test_a_time_limit_around_a_guard_is_a_time_limit() -> None:
    token, sleeper = CancellationToken(), Sleeper()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await token.guard(sleeper.run())


async def test_a_guard_of_a_cancelled_token_never_starts() -> None:
    token, sleeper = CancellationToken(), Sleeper()
    token.cancel()
    with pytest.raises(Cancelled):
        await token.guard(sleeper.run())
    assert not sleeper.began.is_set()
