"""A rolling upgrade: what a process of an older release says to the database still works after new "pre" migrations.

`tests/fixtures/schema_0002` holds the queries of the release whose newest migration was 0002, word for word.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from storage import migrate as migrations
from storage import statements
from storage.database import Database
from storage.factory import create_database
from storage.migrate import migrate
from storage.settings import StorageSettings
from storage.statements import Dialect
from tests.support.postgres import PostgresServer

FIXTURE = Path(__file__).parents[2] / "fixtures" / "schema_0002"
NEWEST = "0002"
NOW = 1_000_000
Rows = Sequence[Sequence[Any]]


@pytest.fixture
def older() -> Iterator[None]:
    """The older release's queries in place of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "FOLDER", FIXTURE)
        patch.setattr(statements, "SHARED", ("shared", "queue"))
        statements.load.cache_clear()
        yield
    statements.load.cache_clear()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, sqlite_url: str, postgres_server: PostgresServer) -> str:
    return sqlite_url if request.param == "sqlite" else postgres_server.create_database()


@pytest.fixture
async def database(url: str, older: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Made by the older release, then upgraded by a start of this one."""
    folder = tmp_path / "older"
    folder.mkdir()
    new = [path for path in migrations.available() if path.name[:4] > NEWEST]
    for path in migrations.available():
        if path not in new:
            shutil.copy(path, folder)
    found = create_database(StorageSettings(url=url))
    await found.open()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(migrations, "FOLDER", folder)
            await migrate(found)
        applied, _ = await migrate(found)
        assert applied == [path.stem for path in new if migrations.stage(path) == "pre"]
        yield found
    finally:
        await found.close()


def message(position: int, turn: str) -> list[Any]:
    return ["s1", position, turn, 0, "user", '{"content":"hi"}', NOW]


def event(seq: int, turn: str, session: str = "s1") -> list[Any]:
    return [session, seq, seq, turn, "final", "{}", None, NOW]


def columns(rows: Rows, width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


async def open_session(database: Database) -> int:
    """The epoch of session `s1`, opened by owner `o1`."""
    await database.execute("register_owner", "o1", "node", 60_000_000)
    await database.execute("create_session", "s1", "u1", "", None, False, NOW, NOW)
    assert await database.fetchrow("lock_session", "s1") is not None
    live = await database.fetchrow("owner_is_live", "o1")
    assert live is not None
    assert live["live"]
    opened = await database.fetchrow("open_session", "s1", "o1", 100, NOW)
    assert opened is not None
    assert await database.execute("renew_owner", "o1", 60_000_000) == 1
    return int(opened["epoch"])


async def test_a_turn_step_by_step(database: Database) -> None:
    epoch = await open_session(database)
    assert await database.fetchrow("fence_session", "s1", epoch) is not None
    assert await database.execute("insert_task", "t1", "s1", "u1", "running", 1, "{}", "key", NOW, NOW) == 1
    await database.execute_rows("insert_messages", [message(1, "t1")])
    await database.execute_rows("insert_events", [event(1, "t1"), event(2, "t1")])
    await database.execute("touch_session", "s1", NOW, 1)
    assert await database.execute("advance_task", "t1", "s1", 1, 1) == 1
    assert await database.execute("finish_task", "t1", "s1", 1, "succeeded", "yes", None, "{}", "stop", NOW) == 1
    task = await database.fetchrow("get_task", "t1")
    assert task is not None
    assert (task["status"], task["answer"]) == ("succeeded", "yes")
    assert len(await database.fetch("read_events", "s1", 0, 100, 1_000_000)) == 2
    assert await database.execute("close_session", "s1", epoch, 2) == 1


async def test_a_background_task_step_by_step(database: Database) -> None:
    await database.execute("register_owner", "o1", "node", 60_000_000)
    await database.execute("create_session", "s1", "u1", "", None, False, NOW, NOW)
    assert await database.fetchrow("next_rank", "u1", 0) is not None
    added = await database.execute("enqueue_task", "t1", "s1", "u1", "{}", None, NOW, 0, 1, True, None, 4)
    assert added == 1
    assert [row["turn_id"] for row in await database.fetch("claimable_tasks", 10)] == ["t1"]
    assert await database.fetchrow("claim_session", "s1", "o1", 100, NOW) is not None
    claimed = await database.fetchrow("claim_task", "t1", NOW)
    assert claimed is not None
    assert claimed["attempt"] == 1
    assert await database.execute("retry_task", "t1", "s1", 1, NOW + 1, "{}") == 1
    await database.execute("record_attempt", "t1", 1, "failed", "{}", NOW, NOW)
    assert [row["turn_id"] for row in await database.fetch("due_tasks", NOW + 1, 10)] == ["t1"]
    assert await database.execute("come_due", "t1", NOW + 1) == 1
    await database.execute("release_next", "s1", NOW + 1)
    assert [row["turn_id"] for row in await database.fetch("list_tasks", None, None, NOW + 1, "", 10)] == ["t1"]


async def test_the_merged_statements(database: Database) -> None:
    if database.dialect == "sqlite":
        assert "accept_turn" not in statements.load("sqlite"), "SQLite takes the steps"
        return
    epoch = await open_session(database)
    said, told = columns([message(1, "t1")], 7), columns([event(1, "t1")], 8)
    none_said, none_told = columns([], 7), columns([], 8)
    task = ["t1", "u1", "running", 1, "{}", None, NOW, NOW]
    accepted = await database.fetchrow("accept_turn", "s1", epoch, *task, *said, *told)
    round_ = await database.fetchrow("commit_round", "s1", epoch, "t1", 1, 1, NOW, *none_said, *none_told)
    end = ["succeeded", "yes", None, "{}", "stop", NOW]
    ended = await database.fetchrow(
        "finish_turn", "s1", epoch, "t1", 1, *end, *none_said, *columns([event(2, "t1")], 8)
    )
    for answer in (accepted, round_, ended):
        assert answer is not None
        assert (answer["fenced"], answer["done"]) == (True, True)
    assert len(await database.fetch("append_events", ["s1"], [epoch], *columns([event(3, "t1")], 8))) == 1


async def test_the_merged_statements_of_the_queue(database: Database) -> None:
    if database.dialect == "sqlite":
        assert "claim_tasks" not in statements.load("sqlite"), "SQLite takes the steps"
        return
    await database.execute("register_owner", "o1", "node", 60_000_000)
    tasks = [["t1", "s1", "u1", None, 0, None, 4, "", None, "{}", NOW]]
    added = await database.fetch("enqueue_new_tasks", *columns(tasks, 11), NOW, ["{}"])
    assert [row["turn_id"] for row in added] == ["t1"]
    (claimed,) = await database.fetch("claim_tasks", "o1", 10, 100, NOW)
    assert (claimed["turn_id"], claimed["attempt"], claimed["epoch"]) == ("t1", 1, 1)
    ends = [["s1", 1, "t1", 1, "succeeded", "yes", None, "{}", "stop", NOW, 2]]
    rows = [*columns(ends, 11), *columns([message(1, "t1")], 7), *columns([event(2, "t1")], 8)]
    (ended,) = await database.fetch("finish_and_leave", *rows)
    assert (ended["turn_id"], ended["done"]) == ("t1", True)


async def test_every_other_statement_is_still_understood(database: Database, url: str) -> None:
    queries = statements.load(database.dialect)
    assert len(queries) > 60
    refused = await _prepare(database.dialect, url, dict(queries))
    assert not refused


async def test_a_statement_about_what_is_gone_is_noticed(database: Database, url: str) -> None:
    """The check above can fail."""
    assert await _prepare(database.dialect, url, {"gone": "SELECT nothing FROM tasks"}) == ["gone"]


async def _prepare(dialect: Dialect, url: str, queries: dict[str, str]) -> list[str]:
    """The names of those that the database refuses before it runs them."""
    refused = []
    if dialect == "postgres":
        connection = await asyncpg.connect(url)
        try:
            for name, sql in queries.items():
                try:
                    await connection.prepare(sql)
                except asyncpg.PostgresError:
                    refused.append(name)
        finally:
            await connection.close()
        return refused
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        for name, sql in queries.items():
            count = max((int(number) for number in re.findall(r"\?(\d+)", sql)), default=0)
            try:
                connection.execute(f"EXPLAIN {sql}", [None] * count).fetchall()
            except sqlite3.OperationalError:
                refused.append(name)
    return refused
