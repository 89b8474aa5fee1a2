"""What the settings tree looks like, read off its types: keys, sections, and what each setting expects."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TypeAlias

from msgspec import inspect

from gateway.settings import Settings

Section: TypeAlias = inspect.StructType
ENTRY = "*"
"""Stands for a name that the user chooses, as in `llm.models.*.api_key`."""


def root() -> Section:
    """The type of the whole tree."""
    return _section(inspect.type_info(Settings))


def fields(section: Section) -> dict[str, inspect.Field]:
    """The settings and sections directly inside."""
    return {field.name: field for field in section.fields}


def entries(info: inspect.Type) -> Section | None:
    """What each named entry looks like, if this is a mapping of entries (`llm.models`)."""
    return _section(info.value_type) if isinstance(info, inspect.DictType) else None


def is_group(info: inspect.Type) -> bool:
    """A section or a mapping of entries: something that holds settings and is none itself."""
    return isinstance(info, inspect.StructType | inspect.DictType)


def is_text(info: inspect.Type) -> bool:
    """Whether a string given for this setting is taken as it is, not read as YAML."""
    return isinstance(info, inspect.StrType | inspect.LiteralType)


def all_keys(section: Section | None = None, prefix: str = "") -> Iterator[str]:
    """Every setting's dotted key."""
    for name, field in fields(section or root()).items():
        key = f"{prefix}{name}"
        entry = entries(field.type)
        if isinstance(field.type, inspect.StructType):
            yield from all_keys(field.type, f"{key}.")
        elif entry is not None:
            yield from all_keys(entry, f"{key}.{ENTRY}.")
        else:
            yield key


def suggestion(key: str) -> str | None:
    """The known key that an unknown one was probably meant to be."""
    known = sorted({part for full in all_keys() for part in (full, full.split(".")[0])})
    near = difflib.get_close_matches(_with_entry(key, known), known, n=1, cutoff=0.75)
    if near:
        return _with_names(near[0], key)
    last = {full.rsplit(".", 1)[-1]: full for full in reversed(known)}
    near = difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1, cutoff=0.75)
    return _with_names(last[near[0]], key) if near else None


def expected(info: inspect.Type) -> str:
    """What a setting of this type takes, in words."""
    match info:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(info)
        case inspect.FloatType():
            return "a number" + _bounds(info)
        case inspect.StrType():
            return "text"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{value}"' for value in values)
        case inspect.VarTupleType(item_type=item):
            return f"a list, each {expected(item)}, such as [a, b]"
        case inspect.UnionType(types=types):
            return " or ".join(expected(kind) for kind in types)
        case inspect.NoneType():
            return "null"
        case _:
            return "a section with settings in it"


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    parts = (
        (info.gt, "above"),
        (info.ge, "at least"),
        (info.lt, "below"),
        (info.le, "at most"),
    )
    words = [f"{word} {bound}" for bound, word in parts if bound is not None]
    return ", " + ", ".join(words) if words else ""


def _with_entry(key: str, known: list[str]) -> str:
    """`llm.models.gpt.api_kye` as `llm.models.*.api_kye`: the user's own name is not a misspelling."""
    for pattern in known:
        head, star, _ = pattern.partition(f".{ENTRY}.")
        if star and key.startswith(f"{head}.") and key.count(".") > pattern.count(".") - 1:
            return f"{head}.{ENTRY}.{key.rsplit('.', 1)[-1]}"
    return key


def _with_names(pattern: str, key: str) -> str:
    head, star, last = pattern.partition(f".{ENTRY}.")
    if not star:
        return pattern
    name = key[len(head) + 1 :].rpartition(".")[0] if key.startswith(f"{head}.") else ""
    return f"{head}.{name or 'NAME'}.{last}"


def _section(info: inspect.Type) -> Section:
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"settings are made of Structs, not of {info}")
    return info
