"""House rules that a machine can check, each shown to catch what it forbids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.structure import rules

PRODUCT = rules.product_files(".py")


@pytest.mark.parametrize("path", rules.product_files(".py", ".sql", ".js", ".css", ".html"), ids=rules.name)
def test_files_are_short(path: Path) -> None:
    assert not rules.too_many_lines(path.read_text())


@pytest.mark.parametrize("path", [*rules.script_files(), *rules.suite_files()], ids=rules.name)
def test_scripts_and_tests_are_short(path: Path) -> None:
    assert not rules.too_many_lines(path.read_text())


@pytest.mark.parametrize(
    "path", [*PRODUCT, *(path for path in rules.script_files() if path.suffix == ".py")], ids=rules.name
)
def test_functions_are_short(path: Path) -> None:
    assert not rules.long_functions(path.read_text())


@pytest.mark.parametrize("path", rules.suite_files(), ids=rules.name)
def test_tests_wait_for_facts_not_for_time(path: Path) -> None:
    assert not rules.sleeps(path.read_text())


@pytest.mark.parametrize("path", PRODUCT, ids=rules.name)
def test_the_environment_is_read_in_one_place(path: Path) -> None:
    # Ray is configured by environment variables of the processes that it starts, so its launch sets some.
    if rules.name(path) != "gateway/settings_loader.py" and path.parent.name != "cluster":
        assert not rules.uses(path.read_text(), rules.ENVIRONMENT)


@pytest.mark.parametrize("path", PRODUCT, ids=rules.name)
def test_wall_time_is_read_in_one_place(path: Path) -> None:
    if rules.name(path) != "actors/clock.py":
        assert not rules.uses(path.read_text(), rules.WALL_CLOCKS)


@pytest.mark.parametrize("path", PRODUCT, ids=rules.name)
def test_nothing_is_pickled(path: Path) -> None:
    assert not rules.imports(path.read_text(), rules.PICKLES)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (rules.too_many_lines("x = 1\n" * 401), "401 lines"),
        (rules.long_functions("async def f():\n" + "    x = 1\n" * 50), "f (line 1) has 51 lines"),
        (rules.sleeps("import asyncio\nasyncio.sleep(1)"), "asyncio.sleep (line 2)"),
        (rules.sleeps("from time import sleep as wait\nwait(0)"), "time.sleep (line 2)"),
        (rules.sleeps("def f():\n    import asyncio as a\n    a.sleep(x)"), "asyncio.sleep (line 3)"),
        (rules.uses("import os\nos.environ['A']", rules.ENVIRONMENT), "os.environ (line 2)"),
        (rules.uses("from os import getenv\ngetenv('A')", rules.ENVIRONMENT), "os.getenv (line 2)"),
        (rules.uses("import time\nf = time.time", rules.WALL_CLOCKS), "time.time (line 2)"),
        (
            rules.uses("from datetime import datetime as d\nd.now()", rules.WALL_CLOCKS),
            "datetime.datetime.now (line 2)",
        ),
        (rules.imports("from pickle import loads", rules.PICKLES), "pickle"),
        (rules.imports("import ray.cloudpickle", rules.PICKLES), "ray.cloudpickle"),
    ],
)
def test_the_rules_catch_what_they_forbid(found: list[str], text: str) -> None:
    assert found == [text]


@pytest.mark.parametrize(
    "found",
    [
        rules.too_many_lines("x = 1\n" * 400),
        rules.long_functions("def f():\n" + "    x = 1\n" * 49),
        rules.sleeps("import asyncio\nasyncio.sleep(0)\nself.sleep(3)"),
        rules.uses("import time\ntime.monotonic()\nself.time.time()", rules.WALL_CLOCKS),
        rules.imports("from actors import pickles", rules.PICKLES),
    ],
)
def test_the_rules_let_pass_what_they_allow(found: list[str]) -> None:
    assert found == []
