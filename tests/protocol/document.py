"""Reads gateway/PROTOCOL.md: its tables, the lists of names in them, and its JSON examples."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
_CODE = re.compile(r"`([^`]+)`")


@cache
def text() -> str:
    return (ROOT / "gateway" / "PROTOCOL.md").read_text()


def tables(head: str) -> list[list[list[str]]]:
    """The rows (cells as written) of every table whose first column has this head."""
    found: list[list[list[str]]] = []
    rows: list[list[str]] | None = None
    for line in text().splitlines():
        if not line.startswith("|"):
            rows = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if rows is not None:
            if not set(line) <= set("|- "):
                rows.append(cells)
        elif cells[0] == head:
            rows = []
            found.append(rows)
        else:
            rows = []
    return found


def table(head: str, index: int = 0) -> list[list[str]]:
    return tables(head)[index]


def codes(cell: str) -> list[str]:
    """Everything in `backquotes`."""
    return _CODE.findall(cell)


def fields(cell: str) -> tuple[set[str], set[str]]:
    """The names that must be there, and those that may (written with `?`)."""
    names = [name for name in codes(cell) if re.fullmatch(r"[a-z_]+\??", name)]
    return {n for n in names if not n.endswith("?")}, {n[:-1] for n in names if n.endswith("?")}


def routes() -> list[str]:
    return [codes(row[0])[0] for row in table("route")]


def events() -> dict[str, tuple[set[str], set[str]]]:
    """Kinds and the fields of their data. Only the second column of the table counts."""
    return {codes(row[0])[0]: fields(row[1]) for row in table("event")}


def examples() -> list[dict[str, Any]]:
    """Every line of the JSON blocks."""
    blocks = re.findall(r"```json\n(.*?)```", text(), re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def golden(kind: str) -> dict[str, Any]:
    """The files of a folder, by the name before the dot."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((GOLDEN / kind).glob("*.json"))}
