"""Every error of ours survives pickling (Ray carries them between processes) and is in the protocol."""

from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Iterator

import pytest

from storage.errors import WunderError
from tests.structure.rules import ROOT, name, product_files

PROTOCOL = ROOT / "gateway" / "PROTOCOL.md"


def _classes(root: type[WunderError]) -> Iterator[type[WunderError]]:
    yield root
    for cls in root.__subclasses__():
        yield from _classes(cls)


def errors() -> list[type[WunderError]]:
    for path in product_files(".py"):
        module = name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if not module.endswith("__main__"):
            importlib.import_module(module)
    found = {cls.__qualname__: cls for cls in _classes(WunderError) if not cls.__module__.startswith("tests")}
    return [found[key] for key in sorted(found)]


ERRORS = errors()


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_it_keeps_its_fields_when_pickled(cls: type[WunderError]) -> None:
    error = cls("what", hint="try", field="x", retry_after_s=1.5, detail={"a": [1]})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is cls
    assert str(copy) == "what"
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_it_explains_itself_and_has_a_code(cls: type[WunderError]) -> None:
    assert cls.__doc__
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", cls.code)
    assert 400 <= cls.status < 600


def test_the_names_of_errors_are_unique() -> None:
    # They travel between processes by class name.
    classes = [cls for cls in _classes(WunderError) if not cls.__module__.startswith("tests")]
    assert len({cls.__name__ for cls in classes}) == len(set(classes))


def documented() -> set[tuple[str, int]]:
    """Rows `| CODE | 503, 507 | ... |` of the protocol, as (code, status)."""
    assert PROTOCOL.is_file(), "gateway/PROTOCOL.md is missing: it must list every error code"
    rows = re.findall(r"^\|\s*`?([A-Z_]+)`?\s*\|\s*([\d, ]+?)\s*\|", PROTOCOL.read_text(), re.MULTILINE)
    return {(code, int(status)) for code, statuses in rows for status in statuses.split(",")}


def test_the_protocol_lists_every_code_and_status_and_no_other() -> None:
    raised = {(cls.code, cls.status) for cls in ERRORS}
    assert documented() == raised
