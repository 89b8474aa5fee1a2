"""Every SQL query says what it does and is used; every override says why it must differ."""

from __future__ import annotations

import re

import pytest

from storage.statements import SHARED as SHARED_FILES
from storage.statements import Statement, read_file
from tests.structure.rules import product_files

SHARED = {name: one for file in SHARED_FILES for name, one in read_file(file).items()}
FILES = {"shared": SHARED, "postgres": read_file("postgres"), "sqlite": read_file("sqlite")}
ALL = [(file, statement) for file, found in FILES.items() for statement in found.values()]
USED = {
    word
    for path in product_files(".py", ".sql")
    for word in re.findall(r'["{](\w+)(?:["}]|:\$\d+\})', path.read_text())
}


@pytest.mark.parametrize(("file", "statement"), ALL, ids=lambda part: getattr(part, "name", part))
def test_it_is_described_and_used(file: str, statement: Statement) -> None:
    assert statement.sentence.endswith(".")
    assert statement.sql or statement.is_fragment
    assert statement.name in USED, f"{file}.sql: nothing uses {statement.name}"
    if file != "shared" and statement.name in SHARED:
        assert statement.why, f"{file}.sql: {statement.name} differs without saying why"
