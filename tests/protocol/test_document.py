"""PROTOCOL.md, the types and the routes say the same: everything in the one is in the other."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import msgspec
import pytest

import actors.tools.registry  # noqa: F401 - every module with error classes has to be loaded
import gateway.errors  # noqa: F401 - the same
from actors.errors import WunderError
from actors.events import EXPIRING_KINDS, VOLATILE_KINDS
from gateway.openapi import BODIES, SUMMARIES
from gateway.protocol import (
    PAYLOADS,
    Attachment,
    Busy,
    ClientFrame,
    CloseCode,
    ConfigOverrides,
    EventKind,
    FrameType,
    ReplyBody,
    WebhookBody,
)
from gateway.settings import Settings
from tests.protocol import document

MADE_BY_READERS = {"gap", "heartbeat"}
ANSWERS_NOBODY = "TOOL_ERROR"


def error_classes(cls: type[WunderError] = WunderError) -> list[type[WunderError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in error_classes(sub))]


TERMINAL_ONLY = ("gateway.cli", "gateway.settings_report")
"""Errors of the command line: they end a program and never travel on the wire."""


def product_errors() -> list[type[WunderError]]:
    return [
        cls
        for cls in error_classes()
        if cls.__module__.split(".")[0] in ("storage", "actors", "gateway")
        and not cls.__module__.startswith(TERMINAL_ONLY)
    ]


def test_every_error_code_with_its_statuses() -> None:
    known: dict[str, set[int]] = {}
    for cls in product_errors():
        known.setdefault(cls.code, set()).add(cls.status)
    written = {
        document.codes(row[0])[0]: {int(status) for status in row[1].split(", ")} for row in document.table("code", 0)
    }
    assert written == known


def test_which_errors_can_be_tried_again() -> None:
    known = {cls.code: False for cls in product_errors()}
    known |= {cls.code: True for cls in product_errors() if cls.retryable and cls.code != ANSWERS_NOBODY}
    written = {document.codes(row[0])[0]: row[3] == "yes" for row in document.table("code", 0)}
    assert written == known


def test_every_close_code() -> None:
    known = {value for name, value in vars(CloseCode).items() if name.isupper()}
    assert {int(row[0]) for row in document.table("code", 1)} == known


def test_every_event_kind() -> None:
    assert set(document.events()) == set(get_args(EventKind))
    assert list(document.golden("events")) == sorted(get_args(EventKind))


def test_which_events_are_volatile_and_which_expire() -> None:
    kept = {document.codes(row[0])[0]: row[3] for row in document.table("event")}
    assert {kind for kind, text in kept.items() if "volatile" in text} == VOLATILE_KINDS
    assert {kind for kind, text in kept.items() if "expires" in text} == set(EXPIRING_KINDS)
    assert {kind for kind, text in kept.items() if not text} == MADE_BY_READERS


def test_every_frame_of_a_client_and_its_payload() -> None:
    written = {document.codes(row[0])[0]: document.fields(row[1]) for row in document.table("type", 0)}
    assert list(written) == ["connect", "ping", "start", "resume", "watch", "cancel"]
    assert set(written) == set(PAYLOADS)
    for type_, (required, optional) in written.items():
        if type_ == "ping":  # takes what connect takes, and uses none of it
            continue
        assert (required, optional) == shape(PAYLOADS[type_]), type_


def test_every_frame_of_the_server() -> None:
    written = {name for row in document.table("type", 1) for name in document.codes(row[0])}
    assert written == set(get_args(FrameType)) == set(document.golden("server"))


def test_every_body_and_its_fields() -> None:
    types: dict[str, type[msgspec.Struct]] = {
        t.__name__: t for t in [*BODIES.values(), Attachment, ConfigOverrides, WebhookBody, ReplyBody]
    }
    written = {document.codes(row[0])[0]: document.fields(row[1]) for row in document.table("body")}
    assert written == {name: shape(type_) for name, type_ in types.items()}


def test_every_route() -> None:
    assert sorted(document.routes()) == sorted(f"{method} {path}" for method, path in SUMMARIES)


def test_which_body_belongs_to_which_route() -> None:
    for row in document.table("route"):
        method, path = document.codes(row[0])[0].split()
        named = [name for name in document.codes(row[1]) if name.endswith("Body")]
        body = BODIES.get((method, path))
        assert named == ([body.__name__] if body else []), path


def test_every_busy_policy() -> None:
    assert {document.codes(row[0])[0] for row in document.table("busy")} == set(get_args(Busy))


def test_the_limits_are_the_defaults() -> None:
    rows = document.table("limit")
    assert len(rows) >= 15
    for row in rows:
        value: Any = Settings()
        for part in document.codes(row[1])[0].split("."):
            value = getattr(value, part)
        assert float(row[2]) == value, row


def test_every_setting_that_is_named_exists() -> None:
    sections = set(Settings.__struct_fields__)
    for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", document.text()):
        section, key = name.split(".")
        if section in sections:
            assert hasattr(getattr(Settings(), section), key), name


def test_the_examples_are_frames() -> None:
    server = set(get_args(FrameType))
    seen = set()
    for example in document.examples():
        seen.add(example["type"])
        if example["type"] not in server:
            frame = msgspec.json.decode(json.dumps(example), type=ClientFrame)
            msgspec.json.decode(frame.payload, type=PAYLOADS[frame.type])
    assert seen == server | set(PAYLOADS)


def test_the_document_can_be_read_in_the_package() -> None:
    assert max(len(line) for line in document.text().splitlines() if not line.startswith(("|", "{"))) <= 200


@pytest.mark.parametrize(("cell", "expected"), [("`a`, `b?`", ({"a"}, {"b"})), ("", (set(), set()))])
def test_how_fields_are_read(cell: str, expected: tuple[set[str], set[str]]) -> None:
    assert document.fields(cell) == expected


def shape(type_: type[msgspec.Struct]) -> tuple[set[str], set[str]]:
    """Names of required and of optional fields."""
    required = {field.encode_name for field in msgspec.structs.fields(type_) if field.required}
    return required, {field.encode_name for field in msgspec.structs.fields(type_)} - required
