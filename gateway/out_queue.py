"""The bounded queue of frames between subscriptions and one socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class OutQueue:
    """Frames in order, bounded in bytes.

    Nothing waits to put: a subscription looks at `full` first and falls back to catching up, so that at most a page
    per subscription lies above the bound. `stalled_s` tells how long a socket has taken nothing.
    """

    def __init__(self, max_bytes: int, monotonic_s: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._monotonic_s = monotonic_s
        self._frames: list[bytes] = []
        self._bytes = 0
        self._writing = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._progress_s = monotonic_s()
        self._finishing = False
        self.closed = False

    @property
    def full(self) -> bool:
        return self._bytes + self._writing > self._max_bytes

    @property
    def depth_bytes(self) -> int:
        return self._bytes + self._writing

    def put(self, frame: bytes) -> None:
        """Queue a frame; never waits. After `close` frames go nowhere."""
        if self.closed:
            return
        if not self._frames and not self._writing:
            self._progress_s = self._monotonic_s()
        self._frames.append(frame)
        self._bytes += len(frame)
        if self.full:
            self._room.clear()
        self._wake.set()

    async def writable(self) -> None:
        """Return when less than half of the bound is used."""
        await self._room.wait()

    async def take(self) -> list[bytes]:
        """What is queued now, at least one frame; empty once finished or closed. `written` reports it done."""
        while not self._frames and not self.closed and not self._finishing:
            self._wake.clear()
            await self._wake.wait()
        frames, self._frames = self._frames, []
        self._writing, self._bytes = self._bytes, 0
        return frames

    def written(self) -> None:
        """The frames last taken are with the kernel."""
        self._writing = 0
        self._progress_s = self._monotonic_s()
        if self._bytes * 2 < self._max_bytes:
            self._room.set()

    def stalled_s(self) -> float:
        """How long frames have been waiting without any being taken by the socket."""
        return self._monotonic_s() - self._progress_s if self._frames or self._writing else 0.0

    def finish(self) -> None:
        """No more frames come; the writer ends when it has written what is queued."""
        self._finishing = True
        self._wake.set()

    def close(self) -> None:
        """End now; what is queued goes nowhere."""
        self._frames = []
        self.closed = True
        self._wake.set()
        self._room.set()
