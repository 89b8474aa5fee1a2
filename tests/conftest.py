"""For every kind of test: nothing waits for ever; with CI=true nothing may be skipped; --seed replays chance."""

from __future__ import annotations

import functools
import inspect
import os
from asyncio import timeout  # the real one: some tests put their own in its place
from typing import Any

import pytest

TIMEOUT_S = 60.0
"""The longest that an async test may take; a module with slow ones says otherwise with a `TIMEOUT_S` of its own."""

_skipped: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="replay scenarios that print a seed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj, getattr(item.module, "TIMEOUT_S", TIMEOUT_S))


def _bounded(test: Any, seconds: float) -> Any:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        async with timeout(seconds):
            await test(*args, **kwargs)

    return bounded


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped and os.environ.get("CI") == "true":
        terminalreporter.write_line("skipped, which CI=true does not allow:", red=True)
        for nodeid in _skipped:
            terminalreporter.write_line(f"  {nodeid}")
