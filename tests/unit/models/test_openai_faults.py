"""F15-F17: an upstream that hangs, talks nonsense, or is overloaded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.cancellation import CancellationToken, Cancelled
from actors.errors import (
    UpstreamError,
    UpstreamGarbage,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from actors.models.assembly import MAX_TEXT_CHARS
from actors.models.backoff import Backoff
from actors.models.base import Completed, Delta, ModelPart, ModelRequest, Retrying
from actors.models.breaker import Breaker
from actors.models.openai import OpenAiModel
from actors.settings import ModelSettings
from tests.support.upstream import Upstream

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def make(upstream: Upstream) -> AsyncIterator[Callable[..., OpenAiModel]]:
    made: list[OpenAiModel] = []

    def build(breaker: Breaker | None = None, backoff: Backoff | None = None, **settings: Any) -> OpenAiModel:
        given = {"provider": "openai", "base_url": upstream.base_url, "api_key": KEY, "retry": 0, **settings}
        backoff = backoff or Backoff(base_s=0.001, max_s=0.002)
        made.append(OpenAiModel("m", ModelSettings(**given), breaker=breaker, backoff=backoff))
        return made[-1]

    yield build
    for model in made:
        await model.close()


def ask(question: str) -> ModelRequest:
    return ModelRequest(messages=[{"role": "user", "content": question}])


async def run(
    model: OpenAiModel, question: str, token: CancellationToken | None = None
) -> tuple[list[ModelPart], Exception | None]:
    parts: list[ModelPart] = []
    try:
        async for part in model.stream(ask(question), token or CancellationToken()):
            parts.append(part)
    except (UpstreamError, Cancelled) as error:
        return parts, error
    return parts, None


# F15: hangs


@pytest.mark.parametrize("fault", ["hang", "silence", "chatter"])
async def test_no_first_token_ends_by_its_deadline(make: Any, upstream: Upstream, fault: str) -> None:
    model, began = make(first_token_timeout_s=0.1, timeout_s=30), time.monotonic()
    parts, error = await run(model, f"fault={fault}")
    assert (parts, type(error)) == ([], UpstreamTimeout)
    assert "first token" in str(error)
    assert 0.09 < time.monotonic() - began < 1
    await upstream.until(lambda: upstream.dropped == 1)


@pytest.mark.parametrize("fault", ["silence", "chatter"])
async def test_silence_midway_ends_by_the_idle_deadline(make: Any, upstream: Upstream, fault: str) -> None:
    model, began = make(first_token_timeout_s=30, timeout_s=0.1), time.monotonic()
    parts, error = await run(model, f"fault={fault},after=4")
    assert len(parts) == 4
    assert isinstance(error, UpstreamTimeout)
    assert error.retryable
    assert "silent" in str(error)
    assert 0.09 < time.monotonic() - began < 1
    await upstream.until(lambda: upstream.dropped == 1)


async def test_a_slow_stream_and_a_slow_reader_are_no_silence(make: Any) -> None:
    model, count = make(first_token_timeout_s=1, timeout_s=0.08), 0
    async for part in model.stream(ask("deltas=12,rate=50,first_ms=150"), CancellationToken()):
        count += isinstance(part, Delta)
        if count == 2:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.2)
    assert count == 12


@pytest.mark.parametrize("question", ["fault=hang", "fault=silence", "fault=silence,after=3", "deltas=1000,rate=100"])
async def test_cancel_closes_the_connection_at_once(make: Any, upstream: Upstream, question: str) -> None:
    token, model = CancellationToken(), make()
    running = asyncio.create_task(run(model, question, token))
    await upstream.until(lambda: upstream.requests == 1)
    began = time.monotonic()
    token.cancel("interrupted")
    _, error = await running
    assert isinstance(error, Cancelled)
    assert error.reason == "interrupted"
    assert time.monotonic() - began < 0.05
    await upstream.until(lambda: upstream.dropped == 1)


async def test_cancel_closes_the_connection_while_the_reader_is_busy(make: Any, upstream: Upstream) -> None:
    token, model = CancellationToken(), make()
    stream = model.stream(ask("deltas=100000,rate=200"), token)
    assert isinstance(await anext(stream), Delta)
    token.cancel()
    await upstream.until(lambda: upstream.dropped == 1)
    with pytest.raises(Cancelled):
        await anext(stream)


async def test_cancel_ends_a_connect_that_hangs(make: Any) -> None:
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.connect(full.getsockname())
        token = CancellationToken()
        model = make(base_url=f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        asyncio.get_running_loop().call_later(0.05, token.cancel)
        _, error = await run(model, "hello", token)
        assert isinstance(error, Cancelled)


async def test_cancel_ends_a_backoff(make: Any, upstream: Upstream) -> None:
    token, model = CancellationToken(), make(retry=3)
    stream = model.stream(ask("status=503,retry_after=20"), token)
    part = await anext(stream)
    assert isinstance(part, Retrying)
    assert part.delay_s >= 20
    asyncio.get_running_loop().call_soon(token.cancel)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        await anext(stream)
    assert time.monotonic() - began < 0.05
    assert upstream.requests == 1


async def test_cancelling_the_task_closes_the_connection(make: Any, upstream: Upstream) -> None:
    running = asyncio.create_task(run(make(), "fault=silence,after=1"))
    await upstream.until(lambda: upstream.wheel.deltas == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await upstream.until(lambda: upstream.dropped == 1)


# F16: garbage


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("truncated", UpstreamGarbage),
        ("bad_utf8", UpstreamGarbage),
        ("bad_json", UpstreamGarbage),
        ("not_chunk", UpstreamGarbage),
        ("surrogate", UpstreamGarbage),
        ("bomb", UpstreamGarbage),
        ("skipped_bomb", UpstreamGarbage),
        ("huge_line", UpstreamGarbage),
        ("nameless_tool", UpstreamGarbage),
        ("error_event", UpstreamOverloaded),
        ("refused_event", UpstreamRefused),
        ("odd_event", UpstreamUnavailable),
        ("cut", UpstreamUnavailable),
        ("reset", UpstreamUnavailable),
    ],
)
async def test_garbage_is_typed_and_partial_text_is_kept(
    make: Any, fault: str, expected: type[UpstreamError], after: int
) -> None:
    parts, error = await run(make(), f"fault={fault},after={after},deltas=50,rate=2000")
    assert type(error) is expected
    assert len(parts) == after
    assert all(isinstance(part, Delta) for part in parts)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("html", UpstreamGarbage),
        ("json_answer", UpstreamGarbage),
        ("gzip", UpstreamGarbage),
        ("not_http", UpstreamGarbage),
        ("json_error", UpstreamOverloaded),
    ],
)
async def test_an_answer_that_is_no_stream(make: Any, fault: str, expected: type[UpstreamError]) -> None:
    parts, error = await run(make(), f"fault={fault}")
    assert (parts, type(error)) == ([], expected)


async def test_an_endless_answer_is_cut_with_bounded_memory(make: Any) -> None:
    tracemalloc.start()
    try:
        parts, error = await run(make(), "fault=flood")
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(error, UpstreamGarbage)
    assert str(MAX_TEXT_CHARS) in str(error)
    assert not any(isinstance(part, Completed) for part in parts)
    # The answer's text so far (kept for `Completed`) and the buffers on its way.
    assert peak < 16 << 20


@pytest.mark.parametrize("options", ["crlf=true", "comments=true", "split=true", "done=false", "crlf=1,split=1"])
async def test_odd_but_right_streams_are_read(make: Any, options: str) -> None:
    question = f'{{"text": "Grüße, 世界 🎉 ok", {_json(options)}}}'
    parts, error = await run(make(), question)
    assert error is None
    completed = parts[-1]
    assert isinstance(completed, Completed)
    assert completed.content == "Grüße, 世界 🎉 ok "
    assert completed.usage.input_tokens == 7


def _json(options: str) -> str:
    pairs = (pair.split("=") for pair in options.split(","))
    return ", ".join(f'"{key}": {"true" if value in ("1", "true") else "false"}' for key, value in pairs)


async def test_the_stop_reason_is_passed_on(make: Any) -> None:
    parts, _ = await run(make(), "deltas=2,finish=length")
    assert isinstance(parts[-1], Completed)
    assert parts[-1].stop_reason == "length"


# F17: statuses, retries, breaker


async def test_429_is_asked_again_and_answers(make: Any, upstream: Upstream) -> None:
    parts, error = await run(make(retry=3), "status=429,retry_after=0.02,times=2,deltas=3")
    assert error is None
    retries = [p for p in parts if isinstance(p, Retrying)]
    assert [(r.attempt, r.max_attempts) for r in retries] == [(2, 4), (3, 4)]
    assert all(0.02 <= r.delay_s <= 0.03 and "429" in r.reason for r in retries)
    assert parts[:2] == retries
    assert sum(isinstance(p, Delta) for p in parts) == 3
    assert upstream.requests == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_attempts_stay_within_the_budget(make: Any, upstream: Upstream, status: int) -> None:
    parts, error = await run(make(retry=2), f"status={status},retry_after=0.001")
    assert isinstance(error, UpstreamOverloaded)
    assert error.retry_after_s == pytest.approx(0.001)
    assert len(parts) == 2
    assert upstream.requests == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_final_and_shows_no_key(make: Any, upstream: Upstream, status: int) -> None:
    parts, error = await run(make(retry=5), f'{{"status": {status}, "text": "key {KEY} or sk-abcdefgh\\n is wrong"}}')
    assert isinstance(error, UpstreamRefused)
    assert not error.retryable
    assert str(status) in error.message
    assert "canary" not in error.message
    assert "sk-" not in error.message
    assert "\n" not in error.message
    assert len(error.message) < 300
    assert (parts, upstream.requests) == ([], 1)
    assert f"Bearer {KEY}".encode() in upstream.last_head


async def test_nothing_is_asked_again_after_the_first_delta(make: Any, upstream: Upstream) -> None:
    parts, error = await run(make(retry=5), "fault=error_event,after=1")
    assert isinstance(error, UpstreamOverloaded)
    assert len(parts) == 1
    assert upstream.requests == 1


async def test_a_failure_before_the_first_delta_is_asked_again(make: Any, upstream: Upstream) -> None:
    parts, error = await run(make(retry=1), "fault=reset,times=1,deltas=2")
    assert error is None
    assert [type(p) for p in parts] == [Retrying, Delta, Delta, Completed]
    assert upstream.requests == 2


async def test_a_dead_host_is_unavailable(make: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        _, error = await run(make(base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1"), "hello")
    assert isinstance(error, UpstreamUnavailable)
    assert "127.0.0.1" not in error.message


@pytest.mark.parametrize("base_url", ["ftp://example.com", "no url at all", "http://[::1"])
async def test_a_base_url_that_is_none(make: Any, base_url: str) -> None:
    _, error = await run(make(base_url=base_url), "hello")
    assert isinstance(error, UpstreamRefused)


async def test_the_breaker_opens_and_one_probe_closes_it(make: Any, upstream: Upstream) -> None:
    breaker = Breaker(threshold=3, rest_s=60)
    model = make(breaker=breaker, retry=10)
    _, error = await run(model, "status=500")
    assert isinstance(error, UpstreamOverloaded)
    assert upstream.requests == 3
    _, error = await run(model, "deltas=1")
    assert isinstance(error, UpstreamUnavailable)
    assert 59 < (error.retry_after_s or 0) <= 60
    assert upstream.requests == 3
    breaker._open_until = asyncio.get_running_loop().time()
    _, error = await run(model, "deltas=1")
    assert error is None
    assert not breaker.is_open


async def test_our_own_rate_does_not_open_the_breaker(make: Any) -> None:
    breaker = Breaker(threshold=2)
    await run(make(breaker=breaker, retry=5), "status=429")
    assert not breaker.is_open


async def test_redirects_are_not_followed_and_proxies_ignored(
    make: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    _, error = await run(make(), "deltas=1")
    assert error is None
    _, error = await run(make(), "status=302")
    assert isinstance(error, UpstreamRefused)


async def test_connections_are_used_again(make: Any, upstream: Upstream) -> None:
    model = make()
    for _ in range(5):
        await run(model, "deltas=3")
    assert upstream.accepted == 1


async def test_a_closed_model_is_unavailable(make: Any) -> None:
    model = make()
    await model.close()
    _, error = await run(model, "deltas=1")
    assert isinstance(error, UpstreamUnavailable)


async def test_the_request_says_what_was_asked(make: Any, upstream: Upstream) -> None:
    model = make(model="gpt-x", max_output=77, temperature=0.5)
    await run(model, "deltas=1")
    body = upstream.last_body
    assert (body["model"], body["max_tokens"], body["temperature"], body["stream"]) == ("gpt-x", 77, 0.5, True)
    assert body["stream_options"] == {"include_usage": True}
    assert "tools" not in body
