"""The pieces of the model client: lines, assembly, back-off, breaker, errors."""

from __future__ import annotations

import contextlib
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import UpstreamError, UpstreamGarbage, UpstreamRefused
from actors.models.assembly import Assembly
from actors.models.backoff import Backoff
from actors.models.base import ModelRequest
from actors.models.breaker import Breaker
from actors.models.sse import DataLines
from actors.models.upstream_errors import redactor, retry_after_s, status_error
from actors.models.wire import request_body


@given(
    st.lists(st.text(st.characters(blacklist_characters="\r\n", codec="utf-8"), max_size=20), max_size=10),
    st.lists(st.integers(0, 400), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
)
def test_lines_are_the_same_however_they_are_cut(texts: list[str], cuts: list[int], eol: str) -> None:
    raw = "".join(f": comment{eol}data: {text}{eol}{eol}" for text in texts).encode()
    edges = [0, *sorted(min(c, len(raw)) for c in cuts), len(raw)]
    lines, got = DataLines(), []
    for start, end in itertools.pairwise(edges):
        got += lines.feed(raw[start:end])
    assert got == [text.encode().strip() for text in texts]


def test_a_last_line_without_its_end_counts() -> None:
    lines = DataLines()
    assert lines.feed(b"data: a\n\ndata: b") == [b"a"]
    assert lines.rest() == [b"b"]
    assert lines.rest() == []


def test_lines_and_streams_are_bounded() -> None:
    with pytest.raises(UpstreamGarbage):
        DataLines(max_line=10).feed(b"data: 0123456789\n")
    lines = DataLines(max_line=10)
    lines.feed(b"data: 01")
    with pytest.raises(UpstreamGarbage):
        lines.feed(b"2345")
    with pytest.raises(UpstreamGarbage):
        DataLines(max_stream=10).feed(b"\n" * 11)


def _assembly() -> Assembly:
    ids = iter(f"made{i}" for i in range(100))
    return Assembly(redactor(""), lambda: next(ids))


def _calls(*parts: dict[str, object]) -> list[tuple[str, str, str]]:
    assembly = _assembly()
    for part in parts:
        assembly.feed(msgspec.json.encode({"choices": [{"delta": {"tool_calls": [part]}}]}))
    assembly.feed(b"[DONE]")
    return [(c.call_id, c.name, c.arguments) for c in assembly.completed().tool_calls]


def test_fragments_of_interleaved_calls() -> None:
    assert _calls(
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "id": "b", "function": {"name": "g"}},
        {"index": 0, "function": {"arguments": '{"x"'}},
        {"index": 1, "function": {"arguments": "{}"}},
        {"index": 0, "id": "", "function": {"name": "", "arguments": ":1}"}},
    ) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_calls_of_servers_that_number_badly() -> None:
    whole = [{"index": 0, "id": i, "function": {"name": "f", "arguments": i}} for i in ("a", "b", "c")]
    assert _calls(*whole) == [("a", "f", "a"), ("b", "f", "b"), ("c", "f", "c")]
    unnumbered = [{"id": i, "function": {"name": "f", "arguments": i}} for i in ("a", "b")]
    assert _calls(*unnumbered) == [("a", "f", "a"), ("b", "f", "b")]
    assert _calls({"index": 0, "function": {"name": "f"}}) == [("made0", "f", "")]


def test_the_number_of_calls_is_bounded() -> None:
    with pytest.raises(UpstreamGarbage):
        _calls(*({"index": i, "function": {"name": "f"}} for i in range(129)))


@given(st.binary(max_size=200))
def test_any_payload_is_a_delta_or_garbage(payload: bytes) -> None:
    with contextlib.suppress(UpstreamError):
        _assembly().feed(payload)


def test_backoff_is_jittered_capped_and_heeds_retry_after() -> None:
    full = Backoff(base_s=0.5, max_s=8, max_retry_after_s=30, draw=lambda: 1.0)
    assert [full.delay_s(n, None) for n in range(1, 7)] == [0.5, 1, 2, 4, 8, 8]
    assert Backoff(draw=lambda: 0.0).delay_s(9, None) == 0
    assert full.delay_s(1, 3.0) == 3.5
    assert full.delay_s(1, 3600.0) == 30.5


def test_breaker() -> None:
    breaker = Breaker(threshold=2, rest_s=1, max_rest_s=3)
    breaker.failed(0)
    breaker.succeeded()
    breaker.failed(0)
    assert breaker.wait_s(0) == 0
    breaker.failed(10)
    assert breaker.wait_s(10.25) == 0.75
    assert breaker.wait_s(11) == 0  # the probe
    assert breaker.wait_s(11) > 0  # nobody beside it
    breaker.abandoned()
    assert breaker.wait_s(11) == 0
    breaker.failed(11)
    assert breaker.wait_s(12) == 1  # it rests twice as long
    assert breaker.wait_s(13) == 0
    breaker.succeeded()
    assert not breaker.is_open


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("5", 5.0),
        ("0.5", 0.5),
        ("1e9", 86_400.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("-3", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(header: str | None, expected: float | None) -> None:
    assert retry_after_s(header, 1000.0) == expected


def test_words_of_a_server_are_fit_to_show() -> None:
    redact = redactor("my-own-secret")
    assert redact("the key my-own-secret and\n\x1b[31m sk-proj-abcdef123") == "the key [key] and [31m [key]"
    assert len(redact("long " * 1000)) <= 200
    error = status_error(400, b'{"error": {"message": "max_tokens is too large"}}', None, redact, 0)
    assert error.message == "The model's server refused the request (400): max_tokens is too large."
    assert isinstance(status_error(400, b"<html>\xff", None, redact, 0), UpstreamRefused)
    quota = b'{"error": {"message": "pay first", "code": "insufficient_quota"}}'
    assert isinstance(status_error(429, quota, "5", redact, 0), UpstreamRefused)


def test_the_request_of_a_round() -> None:
    request = ModelRequest(messages=[{"role": "user", "content": "hi"}], temperature=0.0, max_output=5)
    body = request_body(request, model="m", temperature=1.0, max_output=9, output_field="max_completion_tokens")
    decoded = msgspec.json.decode(body)
    assert decoded["temperature"] == 0.0
    assert decoded["max_completion_tokens"] == 5
