"""/openapi.json: exactly the served routes, valid in structure, every reference leads somewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from tests.protocol import document
from tests.support.local_cluster import local_cluster, local_settings

MAY_WAIT = {
    *("POST /wunder", "POST /wunder/chat/sessions/{session_id}/messages"),
    *("POST /wunder/tasks", "POST /wunder/tasks/{task_id}/retry"),
    "POST /wunder/tasks/{task_id}/answer",
    "POST /wunder/cron/{schedule_id}/run",
    "POST /wunder/admin/nodes/{node_id}/drain",
}
CREATES = {"POST /wunder/chat/sessions", "POST /wunder/cron"}
RESPONSE = {
    "type": "object",
    "properties": {"description": {"type": "string", "minLength": 1}, "content": {"$ref": "#/$defs/content"}},
    "required": ["description"],
    "additionalProperties": False,
}
OPERATION = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "minLength": 1},
        "operationId": {"type": "string", "pattern": "^[a-z_]+$"},
        "parameters": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "in": {"enum": ["path", "query", "header"]},
                    "required": {"type": "boolean"},
                    "description": {"type": "string"},
                    "schema": {"type": "object"},
                },
                "required": ["name", "in", "schema"],
                "additionalProperties": False,
            },
        },
        "requestBody": {
            "type": "object",
            "properties": {"content": {"$ref": "#/$defs/content"}, "required": {"type": "boolean"}},
            "required": ["content"],
            "additionalProperties": False,
        },
        "responses": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {"^[1-5][0-9][0-9]$": RESPONSE},
            "additionalProperties": False,
        },
        "security": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "array"}}},
    },
    "required": ["summary", "operationId", "responses", "security"],
    "additionalProperties": False,
}
STRUCTURE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {
        "content": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": "^[a-z]+/[a-z-]+$"},
            "additionalProperties": {"type": "object", "properties": {"schema": {"type": "object"}}},
        },
        "operation": OPERATION,
    },
    "type": "object",
    "properties": {
        "openapi": {"type": "string", "pattern": r"^3\.1\.\d+$"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"enum": ["get", "post", "put", "patch", "delete"]},
                "additionalProperties": {"$ref": "#/$defs/operation"},
            },
        },
        "components": {
            "type": "object",
            "properties": {
                "schemas": {"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9._-]+$"}},
                "securitySchemes": {"type": "object", "additionalProperties": {"required": ["type"]}},
            },
            "additionalProperties": False,
        },
    },
    "required": ["openapi", "info", "paths", "components"],
    "additionalProperties": False,
}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[dict[str, Any], set[str]]]:
    """The document, and the routes that are really served."""
    async with local_cluster(local_settings(tmp_path)) as cluster, aiohttp.ClientSession() as http:
        async with http.get(f"{cluster.url}/openapi.json") as response:
            assert response.status == 200
            openapi = await response.json()
        app = next(iter(cluster.gateways.values())).app
        known = {f"{r.method} {r.resource.canonical}" for r in app.router.routes() if r.resource is not None}
        yield openapi, {route for route in known if not route.startswith("HEAD ")}


def operations(openapi: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


async def test_it_lists_exactly_what_is_served(served: tuple[dict[str, Any], set[str]]) -> None:
    openapi, routes = served
    assert {name for name, _ in operations(openapi)} == routes
    assert routes == set(document.routes())


async def test_it_is_openapi(served: tuple[dict[str, Any], set[str]]) -> None:
    openapi, _ = served
    Draft202012Validator.check_schema(STRUCTURE)
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(STRUCTURE).iter_errors(openapi)]
    assert errors == []


async def test_every_schema_is_json_schema_and_every_reference_leads_somewhere(
    served: tuple[dict[str, Any], set[str]],
) -> None:
    openapi, _ = served
    schemas = openapi["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    used = set(references(openapi))
    assert used == {f"#/components/schemas/{name}" for name in schemas}


async def test_every_pattern_means_the_same_in_javascript(served: tuple[dict[str, Any], set[str]]) -> None:
    openapi, _ = served
    for pattern in patterns(openapi):
        assert not re.search(r"\\[AZz]|\(\?[PiLmsux<]", pattern), pattern


async def test_operations_are_told_apart_and_declare_their_path(served: tuple[dict[str, Any], set[str]]) -> None:
    openapi, _ = served
    names = Counter(operation["operationId"] for _, operation in operations(openapi))
    assert set(names.values()) == {1}
    schemes = set(openapi["components"]["securitySchemes"])
    for route, operation in operations(openapi):
        declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path" and p["required"]}
        assert declared == set(re.findall(r"{(\w+)}", route)), route
        assert {name for way in operation["security"] for name in way} <= schemes


async def test_who_needs_no_credential(served: tuple[dict[str, Any], set[str]]) -> None:
    openapi, _ = served
    written = {document.codes(row[0])[0] for row in document.table("route") if "no credential needed" in row[2]}
    sign_in = {"POST /wunder/auth/register", "POST /wunder/auth/login"}
    assert {name for name, operation in operations(openapi) if not operation["security"]} == written | sign_in


async def test_statuses_are_those_of_the_document(served: tuple[dict[str, Any], set[str]]) -> None:
    openapi, _ = served
    known = {status for row in document.table("code", 0) for status in row[1].split(", ")}
    for name, operation in operations(openapi):
        good = {status for status in operation["responses"] if status < "400"}
        assert set(operation["responses"]) - good <= known
        assert ("201" in good) == (name in CREATES), name
        assert ("202" in good) == (name in MAY_WAIT), name
        assert ("101" in good) == name.endswith("ws"), name


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for value in node.values():
            yield from patterns(value)
    elif isinstance(node, list):
        for value in node:
            yield from patterns(value)
