"""JSON Schemas of tool arguments, derived from their types, without references (not every model follows them)."""

from __future__ import annotations

from typing import Any

import msgspec


def schema_of(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of a Struct as one object; a type that contains itself has no such schema (`ValueError`)."""
    schema = msgspec.json.schema(arguments)
    definitions = schema.pop("$defs", {})
    inlined: dict[str, Any] = _inline(schema, definitions, ())
    inlined.pop("description", None)
    inlined["additionalProperties"] = False
    return inlined


def _inline(node: Any, definitions: dict[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions, path) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in path:
            raise ValueError(f"{name} contains itself")
        target = {key: value for key, value in definitions[name].items() if key != "title"}
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return {**_inline(target, definitions, (*path, name)), **beside}
    return {key: _inline(value, definitions, path) for key, value in node.items()}
