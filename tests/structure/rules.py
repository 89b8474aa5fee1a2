"""Rules about source text, as functions: each takes a module's text and returns what breaks the rule."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("storage", "actors", "gateway")
LONGEST_FILE = 400
LONGEST_FUNCTION = 50

ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"}
SLEEPS = {"time.sleep", "asyncio.sleep"}
WALL_CLOCKS = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
}
PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle", "ray.cloudpickle"}


def product_files(*suffixes: str) -> list[Path]:
    """Our own files of the three packages."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    return sorted(path for path in found if path.suffix in suffixes and "__pycache__" not in path.parts)


def suite_files() -> list[Path]:
    return sorted(path for path in (ROOT / "tests").rglob("*.py") if "__pycache__" not in path.parts)


def script_files() -> list[Path]:
    return sorted(path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix != ".pyc")


def name(path: Path) -> str:
    """A path as it is written in the repository."""
    return path.relative_to(ROOT).as_posix()


def too_many_lines(text: str) -> list[str]:
    lines = len(text.splitlines())
    return [f"{lines} lines"] if lines > LONGEST_FILE else []


def long_functions(text: str) -> list[str]:
    """Functions above the limit, from their `def` to their last line."""
    return [
        f"{node.name} (line {node.lineno}) has {size} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]


def uses(text: str, forbidden: set[str]) -> list[str]:
    """Where a module mentions one of these dotted names, under whatever name it imported them."""
    tree = ast.parse(text)
    names = dict(_imported(tree))
    found = [
        (node.lineno, full)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and (full := _full_name(node, names)) in forbidden
    ]
    return [f"{full} (line {line})" for line, full in sorted(found)]


def imports(text: str, forbidden: set[str]) -> list[str]:
    """Which of these modules are imported, wholly or in part."""
    full_names = {full for _, full in _imported(ast.parse(text))}
    return sorted({module for module in forbidden for full in full_names if f"{full}.".startswith(f"{module}.")})


def sleeps(text: str) -> list[str]:
    """Calls that wait for time to pass; `asyncio.sleep(0)` only lets other tasks run and is fine."""
    tree = ast.parse(text)
    names = dict(_imported(tree))
    return [
        f"{full} (line {node.lineno})"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (full := _full_name(node.func, names)) in SLEEPS
        if not (full == "asyncio.sleep" and [ast.dump(argument) for argument in node.args] == [_ZERO])
    ]


_ZERO = ast.dump(ast.Constant(0))


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local names and the dotted names they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                yield local, alias.name if alias.asname else local
                yield alias.name, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _full_name(node: ast.AST, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _full_name(node.value, names)
        return f"{base}.{node.attr}" if base else None
    return None
