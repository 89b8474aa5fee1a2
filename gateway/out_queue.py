"""The bounded queue of frames between subscriptions and one socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class OutQueue:
    """Frames in order, bounded in bytes.

    Nothing waits to put: a subscription looks at `full` first and falls back to catching up, so that at most a page
    per subscription lies above the bound. `stalled_s` tells how long the other side has taken nothing: `unread()`
    says how many of the bytes sent are still on our side of the network, so one byte less of them is progress.
    """

    def __init__(
        self, max_bytes: int, monotonic_s: Callable[[], float], *, unread: Callable[[], int] = lambda: 0
    ) -> None:
        self._max_bytes = max_bytes
        self._unread = unread
        self._sent = 0
        self._seen = 0
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
        """Queue a frame; never waits. After `finish` or `close` frames go nowhere."""
        if self.closed or self._finishing:
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

    def sending(self, size: int) -> None:
        """So many bytes of the frames last taken go out now; `written` reports them done."""
        self._sent += size

    def written(self, size: int | None = None) -> None:
        """So many bytes of the frames last taken are with the kernel; without a number all of them."""
        size = self._writing if size is None else size
        self._writing -= size
        self._progress_s = self._monotonic_s()
        if (self._bytes + self._writing) * 2 < self._max_bytes:
            self._room.set()

    @property
    def arrived(self) -> int:
        """How many of the bytes sent have left our side; grows as long as the reader takes any."""
        return self._sent - self._unread()

    def stalled_s(self) -> float:
        """How long frames have been waiting without the reader taking a byte."""
        if not self._frames and not self._writing:
            return 0.0
        if (arrived := self.arrived) > self._seen:
            self._seen = arrived
            self._progress_s = self._monotonic_s()
        return self._monotonic_s() - self._progress_s

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
