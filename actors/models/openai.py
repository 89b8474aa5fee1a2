"""Chat completions, streaming: OpenAI and every server that speaks like it (vLLM, Ollama, LiteLLM, llama.cpp ...).

`stream` asks up to 1 + `retry` times, and only before the first delta: what a reader has seen is never said twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import aiohttp

from actors.cancellation import CancellationToken
from actors.clock import Clock, SystemClock
from actors.errors import UpstreamError, UpstreamGarbage, UpstreamOverloaded, UpstreamUnavailable
from actors.models.assembly import Assembly
from actors.models.backoff import Backoff
from actors.models.base import Delta, ModelPart, ModelRequest, Retrying
from actors.models.breaker import Breaker
from actors.models.exchange import Exchange
from actors.models.pause import Pause
from actors.models.sse import DataLines
from actors.models.upstream_errors import body_error, redactor, status_error
from actors.models.wire import request_body
from actors.settings import ModelSettings

DEFAULT_BASE_URL = "https://api.openai.com/v1"
MAX_CONNECTIONS = 1000
MAX_ERROR_BODY_BYTES = 65_536
_FED_AT_ONCE = 256


class OpenAiModel:
    """A model behind an HTTP API. `base_url` is the operator's choice and may be any address."""

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        *,
        breaker: Breaker | None = None,
        backoff: Backoff | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.max_rounds = settings.max_rounds
        self.max_context = settings.max_context
        self._settings = settings
        base_url = (settings.base_url or DEFAULT_BASE_URL).rstrip("/")
        self._url = f"{base_url}/chat/completions"
        # OpenAI's own newer models refuse max_tokens; most other servers know nothing else.
        self._output_field = "max_completion_tokens" if "//api.openai.com/" in self._url else "max_tokens"
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
        }
        if settings.api_key:
            self._headers["Authorization"] = f"Bearer {settings.api_key}"
        self._redact = redactor(settings.api_key)
        self._breaker = breaker or Breaker()
        self._backoff = backoff or Backoff()
        self._clock = clock or SystemClock()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def stream(self, request: ModelRequest, token: CancellationToken) -> AsyncGenerator[ModelPart, None]:
        """See `Model.stream`."""
        body = request_body(
            request,
            model=self._settings.model or self.name,
            temperature=self._settings.temperature,
            max_output=self._settings.max_output,
            output_field=self._output_field,
        )
        failures, begun = 0, False
        while True:
            self._pass_breaker()
            try:
                async with aclosing(self._attempt(body, token)) as parts:
                    async for part in parts:
                        begun = True
                        yield part
                return
            except UpstreamError as error:
                failures += 1
                if begun or not error.retryable or failures > self._settings.retry or self._breaker.is_open:
                    raise
                delay_s = self._backoff.delay_s(failures, error.retry_after_s)
                reason = error.message
            yield Retrying(failures + 1, self._settings.retry + 1, round(delay_s, 3), reason)
            async with Pause(token) as pause:
                await pause.until(asyncio.get_running_loop().time() + delay_s)

    async def close(self) -> None:
        """Close every connection; streams that are under way fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _attempt(self, body: bytes, token: CancellationToken) -> AsyncGenerator[ModelPart, None]:
        """One request. The breaker hears how it went, whichever way it ends."""
        settings, told = self._settings, False
        try:
            async with Exchange(token, settings.first_token_timeout_s, settings.timeout_s) as exchange:
                await exchange.open(self._open_session(), self._url, body, self._headers)
                await self._check_head(exchange)
                assembly = Assembly(self._redact, self._new_call_id)
                async with aclosing(_deltas(exchange, assembly, token)) as deltas:
                    async for delta in deltas:
                        if not told:
                            told = True
                            self._breaker.succeeded()
                        yield delta
                completed = assembly.completed()
                await exchange.drain()
            told = True
            self._breaker.succeeded()
            token.raise_if_cancelled()
            yield completed
        except UpstreamError as error:
            told = True
            if _is_trouble(error):
                self._breaker.failed(asyncio.get_running_loop().time())
            else:
                self._breaker.succeeded()
            raise
        finally:
            if not told:
                self._breaker.abandoned()

    async def _check_head(self, exchange: Exchange) -> None:
        response = exchange.response
        content_type = response.content_type
        if response.status != 200:
            body = await exchange.read_all(MAX_ERROR_BODY_BYTES)
            now_s = self._clock.now_us() / 1e6
            raise status_error(response.status, body, response.headers.get("Retry-After"), self._redact, now_s)
        if content_type == "application/json":
            body = await exchange.read_all(MAX_ERROR_BODY_BYTES)
            error = body_error(body, self._redact)
            raise error or UpstreamGarbage("The model's server did not stream: it answered one JSON document.")
        if content_type != "text/event-stream":
            raise UpstreamGarbage(
                f"The model's server answered {self._redact(content_type)}, not text/event-stream.",
                hint="Check base_url of this model in config/wunder.yaml (llm.models): it usually ends in /v1.",
            )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise UpstreamGarbage("The model's server compressed its stream, which was not asked for.")

    def _pass_breaker(self) -> None:
        if self._closed:
            raise UpstreamUnavailable("This model is closed: the service is stopping.")
        wait_s = self._breaker.wait_s(asyncio.get_running_loop().time())
        if wait_s > 0:
            raise UpstreamUnavailable(
                "The model's server has failed repeatedly and is left alone for a moment.",
                retry_after_s=round(wait_s, 3),
            )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ttl_dns_cache=60),
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _new_call_id(self) -> str:
        return self._clock.new_id("call")


async def _deltas(exchange: Exchange, assembly: Assembly, token: CancellationToken) -> AsyncGenerator[Delta, None]:
    lines, whole = DataLines(), False
    while not assembly.done:
        try:
            data = await exchange.read()
        except UpstreamError:
            if assembly.finished:
                return
            raise
        for number, payload in enumerate(lines.feed(data) if data else lines.rest(), 1):
            if number % _FED_AT_ONCE == 0:
                await asyncio.sleep(0)  # one read can hold thousands of chunks: others run between them
            if not payload:
                continue
            delta = assembly.feed(payload)
            if assembly.done:
                break
            if assembly.began:
                exchange.heard()
            if delta is not None:
                if token.reason is not None:
                    token.raise_if_cancelled()
                yield delta
        if assembly.finished and not whole:
            whole = True
            exchange.wind_down()
        if not data:
            if not assembly.finished:
                raise UpstreamGarbage("The model's server ended its stream without finishing its answer.")
            return


def _is_trouble(error: UpstreamError) -> bool:
    """Whether it is the upstream that is ill: not a refusal, and not our own rate (429)."""
    if isinstance(error, UpstreamOverloaded):
        return (error.detail or {}).get("status") != 429
    return error.retryable
