"""Migrations in two stages: what a start applies, what waits until every process is new, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import migrate as module
from storage.errors import Conflict, WunderError
from storage.factory import create_store
from storage.settings import StorageSettings
from storage.store import AsyncStorageBackend
from tests.support.postgres import PostgresServer

FIRST = {"0001_first.pre.sql": "CREATE TABLE things (name TEXT, old TEXT)"}
PRE, POST, LATER = "0002_new.pre.sql", "0002_new.post.sql", "0003_more.pre.sql"
SECOND = {
    PRE: "ALTER TABLE things ADD COLUMN new TEXT",
    POST: "ALTER TABLE things DROP COLUMN old",
}
THIRD = {LATER: "CREATE TABLE more (name TEXT)"}


class Release:
    """The migrations that a release brings, over an empty database."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.url = url

    def bring(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self._folder / name).write_text(text)

    async def migrate(self, *, post: bool = False) -> module.Migrated:
        store = create_store(StorageSettings(url=self.url))
        await store.open()
        try:
            return await store.migrate(post=post)
        finally:
            await store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def release(
    request: pytest.FixtureRequest,
    sqlite_url: str,
    postgres_server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Release:
    folder = tmp_path / "migrations"
    folder.mkdir()
    monkeypatch.setattr(module, "FOLDER", folder)
    found = Release(folder, sqlite_url if request.param == "sqlite" else postgres_server.create_database())
    found.bring(FIRST)
    return found


async def test_an_empty_database_gets_everything(release: Release) -> None:
    release.bring(SECOND | THIRD)
    names = ["0001_first.pre", "0002_new.pre", "0002_new.post", "0003_more.pre"]
    assert await release.migrate() == (names, [])


async def test_a_start_leaves_what_older_processes_could_not_stand(release: Release) -> None:
    await release.migrate()
    release.bring(SECOND)
    assert await release.migrate() == (["0002_new.pre"], ["0002_new.post"])
    assert await release.migrate() == ([], ["0002_new.post"])
    assert await release.migrate(post=True) == (["0002_new.post"], [])
    assert await release.migrate(post=True) == ([], [])


async def test_nothing_is_applied_over_one_that_waits(release: Release) -> None:
    await release.migrate()
    release.bring(SECOND)
    await release.migrate()
    release.bring(THIRD)
    with pytest.raises(Conflict, match=r"0003_more\.pre needs 0002_new\.post") as refused:
        await release.migrate()
    assert "wunder migrate --post" in str(refused.value.hint)
    assert await release.migrate(post=True) == (["0002_new.post", "0003_more.pre"], [])


async def test_two_releases_at_once_need_the_older_processes_gone(release: Release) -> None:
    await release.migrate()
    release.bring(SECOND | THIRD)
    with pytest.raises(Conflict):
        await release.migrate()
    names = ["0002_new.pre", "0002_new.post", "0003_more.pre"]
    assert await release.migrate(post=True) == (names, []), "nothing was applied by the refused one"


async def test_one_that_fails_leaves_nothing_behind(release: Release) -> None:
    await release.migrate()
    release.bring(SECOND | {LATER: "ALTER TABLE nothing ADD COLUMN x TEXT"})
    with pytest.raises(WunderError):
        await release.migrate(post=True)
    (module.FOLDER / LATER).unlink()
    assert await release.migrate() == (["0002_new.pre"], ["0002_new.post"])


async def test_the_schema_of_this_release_is_complete(store: AsyncStorageBackend) -> None:
    assert await store.migrate(post=True) == ([], [])


def test_every_file_says_its_stage() -> None:
    names = [path.name for path in module.available()]
    assert names
    assert all(name.endswith((".pre.sql", ".post.sql")) for name in names)
    numbers = [name.split("_")[0] for name in names if name.endswith(".pre.sql")]
    assert len(numbers) == len(set(numbers)), "a number belongs to one migration"


@pytest.mark.parametrize(
    ("url", "choice", "expected"),
    [
        ("sqlite:///x.db", "auto", True),
        ("postgresql://h/d", "auto", False),
        ("postgresql://h/d", "all", True),
        ("sqlite:///x.db", "pre", False),
    ],
)
def test_what_a_start_applies_is_a_setting(url: str, choice: str, expected: bool) -> None:
    assert StorageSettings(url=url, migrate=choice).migrates_all is expected  # type: ignore[arg-type]
