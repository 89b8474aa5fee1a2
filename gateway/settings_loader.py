"""Reads the settings once, at start, and reports every problem at once.

    defaults of the types  <  the YAML file  <  WUNDER_SECTION__KEY variables  <  command-line options

A later layer changes single settings and keeps the rest. Strings in the file may name environment variables:
`${VAR}` must exist, `${VAR:-default}` need not, `$${` is a plain `${`. Variables and options hold text: it is
taken as it is for a setting that is text, and read as YAML for numbers, lists and so on.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import yaml
from msgspec import inspect

from gateway import settings_schema as schema
from gateway.settings import Settings
from gateway.settings_checks import check
from gateway.settings_report import Problem, SettingsError, describe, error, shown

__all__ = ["SettingsError", "describe", "environment", "load_settings", "option_overrides"]

DEFAULT_PATH = "config/wunder.yaml"
PREFIX = "WUNDER_"
SHORT_NAMES = {"WUNDER_BOOTSTRAP_ADMIN_PASSWORD": "security.bootstrap_admin_password"}
OTHER_NAMES = frozenset({"WUNDER_TOKEN", "WUNDER_API_KEY", "WUNDER_SECRETS_KEY"})
"""Credentials of the client commands `wunder chat` and `wunder status`, and a key that the file may name as
`${WUNDER_SECRETS_KEY}`: no settings of the service by themselves."""
TEST_PREFIX = "WUNDER_TEST_"
"""Variables of the test suite: never settings."""

_VARIABLE = re.compile(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")


@dataclass(frozen=True)
class _Given:
    """A value somebody gave; `text` is still to be read as the setting's type wants it."""

    value: object
    source: str
    text: bool = False


_Tree: TypeAlias = "dict[str, _Given | _Tree]"


def environment() -> Mapping[str, str]:
    """The process's environment variables; nothing else in the product reads them."""
    return os.environ


def load_settings(path: str | None, overrides: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """The settings to start with, or `SettingsError` with every problem found.

    Without a `path`, `config/wunder.yaml` is read if it is there. `overrides` are options by dotted key.
    """
    return _Loader(environ).load(path, overrides)


def option_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """`--server.port 8080` or `--server.port=8080` as overrides."""
    found: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.removeprefix("--").partition("=")
        following = value if equals else next(rest, None)
        if not argument.startswith("--") or "." not in name or following is None:
            raise error([Problem(argument.partition("=")[0], "expected --section.key VALUE")])
        found[name.replace("-", "_") if name.count(".") == 1 else name] = following
    return found


class _Loader:
    """One reading; collects problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[Problem] = []

    def load(self, path: str | None, overrides: Mapping[str, str]) -> Settings:
        tree = self._file(path)
        self._variables(tree)
        for key, text in overrides.items():
            self._place(tree, key, key.split("."), _Given(text, "option", text=True), ".")
        settings = self._settings(tree)
        wrong = {problem.key for problem in self._problems}
        between = [problem for problem in check(settings) if not wrong & {problem.key, *problem.reads}]
        self._problems.extend(between)
        if self._problems:
            raise error(self._problems)
        return settings

    # -- the layers

    def _file(self, path: str | None) -> _Tree:
        file = Path(path or DEFAULT_PATH)
        if path is None and not file.exists():
            return {}
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), _Yaml)  # noqa: S506 - a SafeLoader
        except OSError as failed:
            self._problem(str(file), f"cannot be read: {failed.strerror}")
        except UnicodeDecodeError:
            self._problem(str(file), "is not UTF-8 text")
        except yaml.YAMLError as failed:
            self._problem(str(file), f"is not YAML: {_yaml_reason(failed)}")
        else:
            tree = _wrap({} if content is None else content, str(file))
            if isinstance(tree, dict):
                return tree
            self._problem(str(file), f"expected sections with settings, got {shown('', content)}")
        return {}

    def _variables(self, tree: _Tree) -> None:
        for name, text in sorted(self._environ.items()):
            if not name.startswith(PREFIX) or name in OTHER_NAMES or name.startswith(TEST_PREFIX):
                continue
            given = _Given(text, f"environment variable {name}", text=True)
            if name in SHORT_NAMES:
                self._place(tree, name, SHORT_NAMES[name].split("."), given, ".")
            else:
                self._place(tree, name, name.removeprefix(PREFIX).lower().split("__"), given, "__")

    def _place(self, tree: _Tree, name: str, parts: list[str], given: _Given, joiner: str) -> None:
        """Puts one given text where it belongs in the tree."""
        section = schema.root()
        for position, part in enumerate(parts):
            field = schema.fields(section).get(part)
            rest = parts[position + 1 :]
            if field is None or schema.is_group(field.type) != bool(rest):
                break
            if not rest:
                tree[part] = given
                return
            entry = schema.entries(field.type)
            inner = _inside(tree, part, _default_entries(field))
            if inner is None:
                return  # a section that is not one: reported when it is read
            if entry is not None:
                if rest[-1] not in schema.fields(entry) or len(rest) < 2:
                    break
                chosen = _entry_name(inner, joiner.join(rest[:-1]))
                settings = _inside(inner, chosen, {})
                if settings is not None:
                    settings[rest[-1]] = given
                return
            tree, section = inner, _struct(field.type)
        self._problems.append(_unknown(name, ".".join(parts), given.source))

    # -- reading the tree

    def _settings(self, tree: _Tree) -> Settings:
        return msgspec.convert(self._section(schema.root(), tree, ""), Settings)

    def _section(self, section: schema.Section, tree: _Tree, prefix: str) -> dict[str, Any]:
        """The valid settings of a section as plain values; what is wrong is left to its default."""
        fields = schema.fields(section)
        values: dict[str, Any] = {}
        for name, node in tree.items():
            key = f"{prefix}{name}"
            if name not in fields:
                self._problems.append(_unknown(key, key, _source(node)))
            elif isinstance(node, _Given) and node.value is None and schema.is_group(fields[name].type):
                continue  # a section with nothing in it
            elif schema.is_group(fields[name].type):
                values[name] = self._group(fields[name].type, node, key)
            elif isinstance(node, dict):
                what = f"expected {schema.expected(fields[name].type)}, got a section"
                self._problem(key, what, _source(node))
            else:
                values.update(self._leaf(section, fields[name], node, key))
        return values

    def _group(self, info: inspect.Type, node: _Given | _Tree, key: str) -> dict[str, Any]:
        if isinstance(node, _Given):
            if node.value is not None:  # the value is not shown: it may be a secret in the wrong place
                self._problem(key, "expected a section with settings in it, got a single value", node.source)
            node = {}
        entry = schema.entries(info)
        if entry is None:
            return self._section(_struct(info), node, f"{key}.")
        return {name: self._group(entry, item, f"{key}.{name}") for name, item in node.items()}

    def _leaf(self, section: schema.Section, field: inspect.Field, given: _Given, key: str) -> dict[str, Any]:
        try:
            value = self._read(field.type, given, key)
        except yaml.YAMLError:
            self._problem(key, f"expected {schema.expected(field.type)}, got unreadable YAML", given.source)
            return {}
        except LookupError as missing:
            what = f"names the environment variable {missing.args[0]}, which is not set"
            self._problem(key, what, given.source)
            return {}
        try:
            if isinstance(value, float) and not math.isfinite(value):
                raise msgspec.ValidationError
            msgspec.convert({field.name: value}, section.cls)
        except msgspec.ValidationError:
            what = f"expected {schema.expected(field.type)}, got {shown(key, value)}"
            self._problem(key, what, given.source)
            return {}
        return {field.name: value}

    def _read(self, info: inspect.Type, given: _Given, key: str) -> object:
        """The value with variables filled in, and text read as YAML where the setting is no text."""
        if not given.text:
            given = self._expand(given)
        if given.text and isinstance(given.value, str) and not schema.is_text(info):
            return yaml.load(given.value, _Yaml)  # noqa: S506 - a SafeLoader
        return given.value

    def _expand(self, given: _Given) -> _Given:
        value = given.value
        if isinstance(value, list):
            items = [self._expand(_Given(item, given.source)).value for item in value]
            return replace(given, value=items)
        if not isinstance(value, str) or "${" not in value:
            return given
        return replace(given, value=_VARIABLE.sub(self._variable, value), text=True)

    def _variable(self, match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        value = self._environ.get(match[1])
        if value is None or (not value and match[2]):
            if not match[2]:
                raise LookupError(match[1])
            return match[3]
        return value

    def _problem(self, key: str, what: str, source: str = "") -> None:
        self._problems.append(Problem(key, what, source))


class _Yaml(yaml.SafeLoader):
    """YAML without tags that run code, in which a key may be given once only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _wrap(value: object, source: str) -> _Given | _Tree:
    if isinstance(value, dict):
        return {str(name): _wrap(item, source) for name, item in value.items()}
    return _Given(value, source)


def _inside(tree: _Tree, name: str, default: _Tree) -> _Tree | None:
    """The section of that name, made if there is none or an empty one; None if something else is there."""
    node = tree.setdefault(name, default)
    if isinstance(node, _Given) and node.value is None:
        node = tree[name] = default
    return node if isinstance(node, dict) else None


def _default_entries(field: inspect.Field) -> _Tree:
    """What a mapping of entries holds before anybody adds to it."""
    if schema.entries(field.type) is None or not callable(field.default_factory):
        return {}
    tree = _wrap(msgspec.to_builtins(field.default_factory()), "default")
    return tree if isinstance(tree, dict) else {}


def _entry_name(tree: _Tree, name: str) -> str:
    """The entry that a variable means: WUNDER_LLM__MODELS__GPT_4O__API_KEY can only mean `GPT-4o` so."""
    for existing in tree:
        if existing == name or re.sub(r"[^a-z0-9]", "_", existing.lower()) == name:
            return existing
    return name


def _unknown(name: str, key: str, source: str) -> Problem:
    meant = schema.suggestion(key)
    if meant and name.startswith(PREFIX):
        meant = PREFIX + meant.upper().replace(".", "__")
        if name not in SHORT_NAMES:
            meant = next(iter(difflib.get_close_matches(name, SHORT_NAMES, n=1, cutoff=0.9)), meant)
    hint = f"; did you mean {meant}?" if meant else ""
    return Problem(name, f"there is no such setting{hint}", "" if source.endswith(name) else source)


def _source(node: _Given | _Tree) -> str:
    """Where a part of the tree came from: its first value tells."""
    return next(_sources(node), "")


def _sources(node: _Given | _Tree) -> Iterator[str]:
    if isinstance(node, _Given):
        yield node.source
        return
    for inner in node.values():
        yield from _sources(inner)


def _struct(info: inspect.Type) -> schema.Section:
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{info} is no section")
    return info


def _yaml_reason(failed: yaml.YAMLError) -> str:
    """What and where, without the line itself: it may hold a secret."""
    mark = getattr(failed, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"{getattr(failed, 'problem', None) or 'unreadable'}{where}"
