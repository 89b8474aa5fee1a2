"""The pure parts of the wire, for any input: envelopes, segments and cursors in them, messages between processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from actors import messages, replies
from actors.errors import InvalidRequest, WunderError
from actors.events import encode_json, envelope, from_record
from actors.histogram import Histogram
from actors.messages import Command, decode_command, encode
from actors.replies import Event, Reply, decode_reply, to_failed
from gateway.protocol import ClientFrame, EventFrames, cursor, frame, sse_event
from storage.records import EventRecord, SessionId, TurnId
from storage.segments import Segment, cut
from tests.protocol.test_document import product_errors

SESSION = SessionId("ses_1")
ids = st.text("abcXYZ019_.:@-", min_size=1, max_size=20)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text
)
values = st.recursive(scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(text, x, max_size=3), max_leaves=8)
data = st.dictionaries(text, values, max_size=4)
times = st.integers(0, 4_000_000_000_000_000)
deltas = st.lists(st.tuples(st.sampled_from(["delta", "reasoning_delta"]), text), min_size=1, max_size=12)


@given(ids, ids | st.just(""), times, data, st.integers(0, 10**9), st.integers(0, 3))
def test_an_envelope_is_json_on_one_line(
    session_id: str, turn_id: str, now_us: int, given_data: dict[str, Any], seq: int, more: int
) -> None:
    body = envelope(session_id, turn_id, now_us, encode_json(given_data), first_seq=seq, seq=seq + more)
    assert b"\n" not in body
    assert b"\r" not in body
    found = json.loads(body)
    assert (found["session_id"], found["turn_id"], found["data"]) == (session_id, turn_id, given_data)
    assert found.get("first_id", "none") == (seq if more else "none")
    when = datetime.fromisoformat(found["timestamp"])
    assert when.tzinfo == UTC
    assert abs(when.timestamp() * 1e6 - now_us) < 1001


@given(text.filter(bool), ids, data, st.integers(1, 10**15))
def test_an_event_is_the_same_over_websocket_and_sse(request_id: str, kind: str, given_data: Any, seq: int) -> None:
    body = envelope("s", "t", 0, encode_json(given_data))
    event = Event(SESSION, 1, seq, seq, "t", kind, body)
    over_websocket = json.loads(EventFrames(request_id)(event))
    assert over_websocket["request_id"] == request_id
    payload = over_websocket["payload"]
    lines = sse_event(event).decode().split("\n")
    assert lines[:2] == [f"id: {seq}", f"event: {kind}"]
    assert json.loads(lines[2].removeprefix("data: ")) == payload["data"]
    assert (payload["id"], payload["event"], lines[3:]) == (seq, kind, ["", ""])


@given(st.sampled_from(["ready", "ack", "event", "error", "pong"]), st.none() | text, data)
def test_a_frame_is_what_it_says(type_: Any, request_id: str | None, payload: dict[str, Any]) -> None:
    found = json.loads(frame(type_, request_id, payload))
    assert (found["type"], found.get("request_id"), found["payload"]) == (type_, request_id, payload)


@given(deltas, st.integers(1, 1000), st.data())
def test_what_a_reader_had_and_the_rest_are_the_whole(
    parts: list[tuple[str, str]], first: int, draw: st.DataObject
) -> None:
    segment = segment_of(parts, first)
    record = segment.to_record()
    assert (record.first_seq, record.seq) == (first, first + len(parts) - 1)
    after = draw.draw(st.integers(0, record.seq - 1))
    rest = cut(record, after)
    assert (rest.first_seq, rest.seq) == (max(first, after + 1), record.seq)
    had = parts[: max(0, after - first + 1)]
    assert joined([*had, *pieces(rest)]) == joined(parts)
    assert json.loads(rest.data)["model_round"] == 2


@given(deltas, st.integers(1, 1000), st.data())
def test_cutting_twice_is_cutting_once(parts: list[tuple[str, str]], first: int, draw: st.DataObject) -> None:
    assume(len(parts) > 1)
    record = segment_of(parts, first).to_record()
    once = draw.draw(st.integers(first, record.seq - 1))
    again = draw.draw(st.integers(once, record.seq - 1))
    assert cut(cut(record, once), again) == cut(record, again)


@given(deltas, st.integers(1, 1000))
def test_a_segment_is_its_live_events_put_together(parts: list[tuple[str, str]], first: int) -> None:
    event = from_record(segment_of(parts, first).to_record(), 1)
    live = [envelope(SESSION, "turn_1", 0, encode_json({field: said, "model_round": 2})) for field, said in parts]
    found = json.loads(event.body)["data"]
    assert joined([(f, t) for f, t in found.items() if f != "model_round"]) == joined(
        [(f, t) for body in live for f, t in json.loads(body)["data"].items() if f != "model_round"]
    )


@given(st.integers(1, 100), st.integers(0, 100), data)
def test_an_event_without_parts_is_never_cut(seq: int, after: int, given_data: dict[str, Any]) -> None:
    record = EventRecord(
        session_id=SESSION,
        first_seq=seq,
        seq=seq,
        turn_id=TurnId("t"),
        kind="final",
        data=encode_json(given_data),
        created_us=0,
    )
    assert cut(record, after) is record


@given(st.integers(0, 10**18 - 1))
def test_a_cursor_as_number_and_as_text(value: int) -> None:
    assert cursor(value) == cursor(str(value)) == value


@given(st.integers(max_value=-1) | st.integers(min_value=10**18) | st.text())
def test_everything_else_is_no_cursor(value: int | str) -> None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        assert cursor(value) == int(value)
        return
    with pytest.raises(InvalidRequest) as refused:
        cursor(value, "where")
    assert refused.value.field == "where"
    assert refused.value.message.startswith("where: ")


@pytest.mark.parametrize("type_", get_args(messages.AnyCommand), ids=lambda t: t.__name__)
def test_a_command_arrives_as_it_was_sent(type_: type[Command]) -> None:
    @given(st.data())
    def arrives(draw: st.DataObject) -> None:
        command = draw.draw(instances(type_))
        assert decode_command(encode(command)) == command

    arrives()


@pytest.mark.parametrize(
    "type_", [t for t in get_args(replies.AnyReply) if t is not replies.Failed], ids=lambda t: t.__name__
)
def test_a_reply_arrives_as_it_was_sent(type_: type[Reply]) -> None:
    @given(st.data())
    def arrives(draw: st.DataObject) -> None:
        reply = draw.draw(instances(type_))
        assert decode_reply(encode(reply)) == reply

    arrives()


@given(st.sampled_from(product_errors()), text, st.none() | text, st.none() | st.floats(0, 100), st.none() | data)
def test_an_error_arrives_as_the_same_class(
    cls: type[WunderError], message: str, hint: str | None, retry_after_s: float | None, detail: dict[str, Any] | None
) -> None:
    sent = cls(message, hint=hint, field=hint, retry_after_s=retry_after_s, detail=detail)
    with pytest.raises(WunderError) as raised:
        decode_reply(encode(to_failed(sent)))
    found = raised.value
    assert type(found) is cls
    assert vars(found) == vars(sent)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_a_frame_of_any_bytes_is_read_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(msgspec.json.decode(raw, type=ClientFrame), ClientFrame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return


def instances(type_: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any message of this type."""
    known: dict[str, st.SearchStrategy[Any]] = {
        "events": st.lists(events, max_size=3).map(tuple),
        "attachments": st.lists(data, max_size=2).map(tuple),
        "config_overrides": data,
        "info": data,
        "gauges": st.dictionaries(text, st.floats(allow_nan=False), max_size=3),
        "histograms": st.dictionaries(text, st.builds(Histogram, st.tuples(st.integers(0, 2**40)), st.floats(0, 1e9))),
        "held": st.lists(st.tuples(ids, ids), max_size=3).map(tuple),
        "waiting": st.lists(st.tuples(ids, ids), max_size=3).map(tuple)
        if type_ is messages.RegisterActor
        else st.booleans(),
        "busy": st.sampled_from(["enqueue", "reject", "interrupt"]),
    }
    hints = msgspec.structs.fields(type_)
    fields = {f.name: known[f.name] if f.name in known else of_type(f.type) for f in hints}
    return st.builds(type_, **fields)


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    annotation = getattr(annotation, "__supertype__", annotation)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: text,
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        bytes: st.binary(max_size=10),
        type(None): st.none(),
    }
    if annotation in simple:
        return simple[annotation]
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return instances(annotation)
    inner = get_args(annotation)
    if getattr(annotation, "__origin__", None) is tuple:
        return st.lists(of_type(inner[0]), max_size=3).map(tuple)
    return st.one_of([of_type(one) for one in inner])


events = st.builds(
    Event,
    session_id=ids,
    epoch=st.integers(0, 100),
    first_seq=st.integers(0, 10**15),
    seq=st.integers(0, 10**15),
    turn_id=ids,
    kind=ids,
    body=st.binary(max_size=20),
)


def segment_of(parts: list[tuple[str, str]], first: int) -> Segment:
    head = {"model_round": 2}
    segment = Segment(SESSION, TurnId("turn_1"), "llm_output_delta", head, first_seq=first, created_us=0)
    for field, said in parts:
        segment.add(field, said)
    return segment


def pieces(record: EventRecord) -> list[tuple[str, str]]:
    return [(field, said) for field, said in json.loads(record.data).items() if field != "model_round"]


def joined(parts: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, said in parts:
        found[field] = found.get(field, "") + said
    return {field: said for field, said in found.items() if said}
