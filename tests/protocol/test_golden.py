"""The golden frames: what the code makes of the same facts, byte for byte; what clients may send, decoded."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec
import pytest

import gateway.errors  # noqa: F401 - the error classes of the edge count too
from actors.events import decode_json, encode_json, from_record, gap
from actors.replies import Event, to_error, to_failed
from gateway import sse
from gateway.http_common import error_object, error_response
from gateway.protocol import PAYLOADS, ClientFrame, EventFrames, sse_event
from gateway.views import impossible
from storage.records import EventRecord, SessionId, TurnId
from storage.segments import cut
from tests.protocol import document
from tests.protocol.test_document import product_errors

NOW_US = 1_795_495_241_866_000
SESSION = SessionId("ses_1")

EVENTS = [(kind, case) for kind, cases in document.golden("events").items() for case in cases]
FRAMES = [(type_, frame) for type_, frames in document.golden("client").items() for frame in frames]
ERRORS = [(code, case) for code, cases in document.golden("errors").items() for case in cases]


class FixedClock:
    def now_us(self) -> int:
        return NOW_US


def event_of(case: dict[str, Any]) -> Event:
    """The event that the code makes of a golden's facts."""
    if "gap" in case:
        return gap(SESSION, 3, now_us=NOW_US, **case["gap"])
    if "impossible" in case:
        return impossible(SESSION, 3, case["impossible"]["after"], case["impossible"]["latest"], FixedClock())  # type: ignore[arg-type]
    given = case["record"]
    record = EventRecord(
        session_id=SESSION,
        first_seq=given["first_seq"],
        seq=given["seq"],
        turn_id=TurnId(given["turn_id"]),
        kind=given["kind"],
        data=encode_json(given["data"]),
        parts=encode_json(given["parts"]) if "parts" in given else None,
        created_us=NOW_US,
    )
    return from_record(cut(record, given.get("after", 0)), 3)


@pytest.mark.parametrize(("kind", "case"), [e for e in EVENTS if e[0] != "heartbeat"])
def test_an_event_over_websocket_and_sse(kind: str, case: dict[str, Any]) -> None:
    event = event_of(case)
    assert event.kind == kind
    assert decode_json(EventFrames("a")(event)) == case["websocket"]
    assert sse_event(event).decode() == case["sse"]


@pytest.mark.parametrize(("kind", "case"), EVENTS)
def test_an_event_has_the_fields_of_the_document(kind: str, case: dict[str, Any]) -> None:
    payload = case["websocket"]["payload"]
    required, optional = document.events()[kind]
    assert payload["event"] == kind
    assert isinstance(payload["id"], int)
    assert {"session_id", "turn_id", "timestamp", "data"} <= set(payload["data"]) <= {*payload["data"], "first_id"}
    assert required <= set(payload["data"]["data"]) <= required | optional


def test_every_field_of_every_event_is_shown_once() -> None:
    for kind, cases in document.golden("events").items():
        shown = {name for case in cases for name in case["websocket"]["payload"]["data"]["data"]}
        required, optional = document.events()[kind]
        assert shown == required | optional, kind


@pytest.mark.parametrize(("type_", "frame"), FRAMES)
def test_a_frame_of_a_client_is_understood(type_: str, frame: dict[str, Any]) -> None:
    assert frame["type"] == type_
    decoded = msgspec.json.decode(json.dumps(frame), type=ClientFrame)
    payload = msgspec.json.decode(decoded.payload, type=PAYLOADS[type_])
    sent = frame.get("payload", {})
    assert set(sent) <= set(payload.__struct_fields__)
    again = json.loads(msgspec.json.encode(payload))
    assert {name: again[name] for name in sent} == sent


def test_every_field_of_every_client_frame_is_shown_once() -> None:
    assert set(document.golden("client")) == set(PAYLOADS)
    for type_, frames in document.golden("client").items():
        shown = {name for frame in frames for name in frame.get("payload", {})}
        if type_ != "ping":
            assert shown == set(PAYLOADS[type_].__struct_fields__), type_


@pytest.mark.parametrize(("code", "case"), ERRORS)
def test_an_error(code: str, case: dict[str, Any]) -> None:
    cls = next(cls for cls in product_errors() if cls.__name__ == case["error"])
    error = cls(**case["given"])
    assert error_object(error, "tr_1", NOW_US) == case["body"]
    assert case["body"]["code"] == code
    response = error_response(error, "tr_1", NOW_US)
    assert (response.status, response.headers["x-error-code"]) == (case["body"]["status"], code)
    assert ("Retry-After" in response.headers) == (response.status in (429, 503))
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {"ok": False, "error": case["body"]}


@pytest.mark.parametrize(("code", "case"), ERRORS)
def test_an_error_that_crossed_processes_is_the_same(code: str, case: dict[str, Any]) -> None:
    cls = next(cls for cls in product_errors() if cls.__name__ == case["error"])
    error = to_error(to_failed(cls(**case["given"])))
    assert type(error) is cls
    assert error_object(error, "tr_1", NOW_US) == case["body"]


def test_every_error_class_has_a_golden() -> None:
    assert {case["error"] for _, case in ERRORS} == {cls.__name__ for cls in product_errors()}


def test_the_lines_of_an_event_stream() -> None:
    golden = {name: value["text"] for name, value in document.golden("sse").items()}
    source = inspect.getsource(sse)
    for name in ("retry", "keep-alive"):
        assert repr(golden[name].encode())[1:].strip("'") in source
    event = event_of(document.golden("events")["llm_output_delta"][0])
    assert sse_event(event).decode() == golden["event"]
    assert golden["error"].startswith("event: error\ndata: {")
    assert golden["error"].endswith("}\n\n")
