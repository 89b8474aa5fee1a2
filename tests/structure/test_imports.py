"""The arrow between the packages, the fences around libraries, and no cycles."""

from __future__ import annotations

import subprocess
import sys

import grimp
import pytest

from tests.structure.rules import PACKAGES, ROOT


def test_the_import_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    built = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {module: set(built.find_modules_directly_imported_by(module)) for module in built.modules}


def test_no_modules_import_each_other(graph: dict[str, set[str]]) -> None:
    assert cycle(graph) is None


def test_a_cycle_would_be_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """A path from a module back to itself, or None."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                found = visit(imported, [*path, module])
                if found:
                    return found
            done.add(module)
        return None

    return next((found for module in sorted(graph) if (found := visit(module, []))), None)
