"""Migrations: numbered, forward only, each applied once under a lock.

`NNNN_name.pre.sql` may run while the release before it still serves (add things);
`NNNN_name.post.sql` may run once no process of that release is left (take things away).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from storage.database import Database, MigrationRunner

Stage = Literal["pre", "post"]

MIGRATION_LOCK = 0x77756E646572  # "wunder" in ASCII
FOLDER = Path(__file__).parent / "migrations"


def available(stages: Collection[Stage] = ("pre", "post")) -> list[Path]:
    """The files to apply, in order: by number, "pre" before "post"."""
    files = [path for path in FOLDER.glob("*.sql") if path.name.split(".")[1] in stages]
    return sorted(files, key=lambda path: (path.name.split("_")[0], path.name.split(".")[1] == "post"))


async def migrate(database: Database, *, stages: Collection[Stage] = ("pre", "post")) -> list[str]:
    """Apply what is missing, all in one transaction; the names of what was applied."""

    async def apply(migration: MigrationRunner) -> list[str]:
        await migration.fetch("take_lock", MIGRATION_LOCK)
        await migration.execute("create_migrations")
        applied = {row["name"] for row in await migration.fetch("list_migrations")}
        missing = [path for path in available(stages) if path.stem not in applied]
        for path in missing:
            await migration.execute_script(path.read_text(encoding="utf-8"))
            await migration.execute("record_migration", path.stem)
        return [path.stem for path in missing]

    return await database.migrate(apply)
