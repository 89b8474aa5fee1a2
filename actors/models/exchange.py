"""One request to a model's server and its answer, with two deadlines and a cancellation that closes the connection.

       open                      first payload with content          whole              end
        |--------- first_s --------->|---- idle_s ---->|---- idle_s -->|-- idle_s in all ->|

One timer serves the whole exchange: it looks at the deadline when it fires and is set again if that has moved, so a
chunk costs no timer and no task. What closes the connection early is remembered, and every wait then raises it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from actors.cancellation import CancellationToken, Cancelled
from actors.errors import (
    UpstreamError,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)

_DRAIN_S = 0.05


class Exchange:
    """`async with Exchange(...) as exchange:`, then `open`, then `read` until it gives b""."""

    def __init__(self, token: CancellationToken, first_s: float, idle_s: float) -> None:
        self._token = token
        self._first_s = first_s
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + first_s
        self._timer = self._loop.call_at(self._deadline, self._tick)
        self._timer_at = self._deadline
        self._waiting = False
        self._talking = False
        self._began = False
        self._winding_down = False
        self._expired = False
        self._opening: asyncio.Task[None] | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._remove: Callable[[], object] = lambda: None

    async def __aenter__(self) -> Exchange:
        self._remove = self._token.add_callback(self._abort)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._remove()
        self._timer.cancel()
        if self._response is not None:
            self._response.close()

    @property
    def response(self) -> aiohttp.ClientResponse:
        assert self._response is not None  # noqa: S101 - open() has returned
        return self._response

    async def open(self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> None:
        """Send the request and wait for the head of the answer."""
        self._token.raise_if_cancelled()
        self._waiting = True
        self._opening = asyncio.create_task(self._post(session, url, body, headers), name="model-open")
        try:
            await self._opening
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise self._why_ended(None) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._why_ended(error) from None
        finally:
            self._waiting = False

    async def read(self) -> bytes:
        """The next bytes, b"" at the end."""
        if self._token.reason is not None:
            raise Cancelled(self._token.reason)
        if self._talking:
            self._deadline = self._loop.time() + self._idle_s
            self._talking = False
            self._began = True
            if self._deadline < self._timer_at:
                self._set_timer(self._deadline)
        elif self._winding_down and self._deadline < self._timer_at:
            self._set_timer(self._deadline)
        self._waiting = True
        try:
            return await self.response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise self._why_ended(error) from None
        finally:
            self._waiting = False

    def heard(self) -> None:
        """Content has come: from the next read on, silence is measured anew. (A comment is silence.)"""
        self._talking = not self._winding_down

    def wind_down(self, within_s: float | None = None) -> None:
        """The answer is whole: what is left must come within so long (or one silence) in all, whatever is heard."""
        self._winding_down, self._talking, self._began = True, False, True
        self._deadline = self._loop.time() + (self._idle_s if within_s is None else within_s)
        if self._deadline < self._timer_at:
            self._set_timer(self._deadline)

    async def read_all(self, limit: int) -> bytes:
        """The body of a small answer; more than `limit` bytes are left unread."""
        pieces, size = [], 0
        while size < limit and (piece := await self.read()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)[:limit]

    async def drain(self) -> None:
        """Read what is left of an answer that is over, so that its connection can serve again; not for long."""
        content = self.response.content
        self.wind_down(_DRAIN_S)
        try:
            while not content.is_eof():
                if await self.read() == b"":
                    break
        except UpstreamError:
            return
        self.response.release()

    async def _post(self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> None:
        self._response = await session.post(url, data=body, headers=headers, allow_redirects=False)

    def _tick(self) -> None:
        now = self._loop.time()
        if self._waiting and now >= self._deadline:
            self._expired = True
            self._abort()
        else:
            self._set_timer(self._deadline if self._waiting else now + self._idle_s)

    def _set_timer(self, when: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_at(when, self._tick)
        self._timer_at = when

    def _abort(self) -> None:
        if self._response is not None:
            self._response.close()
        elif self._opening is not None:
            self._opening.cancel()

    def _why_ended(self, error: Exception | None) -> Exception:
        if self._token.reason is not None:
            return Cancelled(self._token.reason)
        if self._expired:
            return self._timeout()
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            return UpstreamRefused("base_url of this model is not an http(s) URL.")
        if isinstance(error, aiohttp.ClientResponseError | ValueError):
            return UpstreamGarbage("The model's server answered something that is not HTTP.")
        if isinstance(error, aiohttp.ClientConnectorError):
            return UpstreamUnavailable("The model's server cannot be reached.")
        return UpstreamUnavailable("The connection to the model's server broke.")

    def _timeout(self) -> UpstreamTimeout:
        if self._began:
            return UpstreamTimeout(f"The model's server fell silent for {self._idle_s:g} s.")
        return UpstreamTimeout(f"The model's server sent no first token within {self._first_s:g} s.")
