"""Migrations: numbered, forward only, each applied once under a lock.

`NNNN_name.pre.sql` may run while the release before it still serves (add things);
`NNNN_name.post.sql` may run once no process of that release is left (take things away).

An empty database gets all of them. Later a start applies only the "pre" ones; the "post" ones wait until somebody says
that all processes are new. A "pre" one is never applied over an earlier "post" one that waits: it was written for what
that one leaves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from storage.database import Database, MigrationRunner
from storage.errors import Conflict

Stage = Literal["pre", "post"]

MIGRATION_LOCK = 0x77756E646572  # "wunder" in ASCII
FOLDER = Path(__file__).parent / "migrations"


class Migrated(NamedTuple):
    """The names of what was applied, and of the "post" ones that wait."""

    applied: list[str]
    waiting: list[str]


def available() -> list[Path]:
    """All files in order: by number, "pre" before "post"."""
    return sorted(FOLDER.glob("*.sql"), key=lambda path: (path.name.split("_")[0], stage(path) == "post"))


def stage(path: Path) -> Stage:
    """When a file may be applied."""
    return "post" if path.name.split(".")[1] == "post" else "pre"


async def migrate(database: Database, *, post: bool = False) -> Migrated:
    """Apply what is missing, all in one transaction; `Conflict` if that needs a "post" one that must wait."""

    async def apply(migration: MigrationRunner) -> Migrated:
        await migration.fetch("take_lock", MIGRATION_LOCK)
        await migration.execute("create_migrations")
        known = {row["name"] for row in await migration.fetch("list_migrations")}
        missing = [path for path in available() if path.stem not in known]
        now, waiting = (missing, []) if post or not known else _split(missing)
        for path in now:
            await migration.execute_script(path.read_text(encoding="utf-8"))
            await migration.execute("record_migration", path.stem)
        return Migrated([path.stem for path in now], [path.stem for path in waiting])

    return await database.migrate(apply)


def _split(missing: list[Path]) -> tuple[list[Path], list[Path]]:
    """What may run beside the release before, and what may not yet."""
    waiting = [path for path in missing if stage(path) == "post"]
    now = [path for path in missing if stage(path) == "pre"]
    if waiting and now and missing.index(now[-1]) > missing.index(waiting[0]):
        raise Conflict(
            f"{now[-1].stem} needs {waiting[0].stem}, which waits until no process of an older release is left",
            hint="stop every older process, then run `wunder migrate --post`",
        )
    return now, waiting
