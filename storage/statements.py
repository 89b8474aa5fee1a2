"""The named queries of `queries/*.sql`: one text for both databases, and overrides where they must differ.

    -- name: find_user            a query; `-- fragment:` is a piece that others include as {word}
    -- One sentence about it.
    -- why: ...                   only in an override: why the shared text does not do
    SELECT ... WHERE username_key = $1

`{word:$7}` includes a fragment with its parameters moved: its `$1` becomes `$7`, its `$2` becomes `$8`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

Dialect = Literal["postgres", "sqlite"]

SHARED = ("shared", "queue", "children", "schedules", "outbox", "channels")
FOLDER = Path(__file__).parent / "queries"
_HEADER = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"\{(\w+)(?::\$(\d+))?\}")
_PARAMETER = re.compile(r"\$(\d+)")


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One named piece of SQL as it stands in its file."""

    name: str
    is_fragment: bool
    sentence: str
    why: str
    sql: str


def parse(text: str) -> dict[str, Statement]:
    """The statements of one file by name; a name that comes twice is an error."""
    parts = _HEADER.split(text)[1:]
    found: dict[str, Statement] = {}
    for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if name in found:
            raise ValueError(f"query {name!r} is written twice in one file")
        found[name] = _statement(kind, name, body)
    return found


def _statement(kind: str, name: str, body: str) -> Statement:
    lines = body.strip().splitlines()
    size = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    comment = " ".join(line.removeprefix("--").strip() for line in lines[:size])
    sentence, _, why = comment.partition("why:")
    return Statement(
        name=name,
        is_fragment=kind == "fragment",
        sentence=sentence.strip(),
        why=why.strip(),
        sql="\n".join(lines[size:]).strip(),
    )


def read_file(name: str) -> dict[str, Statement]:
    """The statements of `queries/<name>.sql`."""
    return parse((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))


@cache
def load(dialect: Dialect) -> Mapping[str, str]:
    """Every query of a database, ready to send."""
    statements = {name: one for file in SHARED for name, one in read_file(file).items()} | read_file(dialect)
    queries = {s.name: _expand(s.sql, statements) for s in statements.values() if not s.is_fragment}
    if dialect == "sqlite":
        queries = {name: _PARAMETER.sub(r"?\1", sql) for name, sql in queries.items()}
    return MappingProxyType(queries)


def _expand(sql: str, statements: Mapping[str, Statement]) -> str:
    def include(match: re.Match[str]) -> str:
        text = statements[match[1]].sql
        by = int(match[2]) - 1 if match[2] else 0
        return _PARAMETER.sub(lambda parameter: f"${int(parameter[1]) + by}", text)

    return _INCLUDE.sub(include, sql)
