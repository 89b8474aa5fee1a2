"""What `wunder serve` says to the person who starts it: on the terminal, or to the process that waits for it."""

from __future__ import annotations

import os
from typing import Protocol

SETTLED = "\x04"
"""Ends what a detached process says: its start is over."""


class Voice(Protocol):
    """Who is told what a person needs to know; not the log."""

    def say(self, text: str) -> None: ...
    def settled(self, text: str) -> None:
        """The last thing of a start."""


class Terminal:
    """Says it at once, also into a pipe."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def settled(self, text: str) -> None:
        self.say(text)


class ReadyPipe:
    """Until the start is over, says it to who has started us: a first password must not reach a log file."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor: int | None = descriptor

    def say(self, text: str) -> None:
        if self._descriptor is None:
            print(text, flush=True)
        else:
            self._write(f"{text}\n")

    def settled(self, text: str) -> None:
        self._write(f"{text}\n{SETTLED}")
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, text: str) -> None:
        data = text.encode()
        while self._descriptor is not None and data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BrokenPipeError:  # nobody waits any more; the start goes on
                os.close(self._descriptor)
                self._descriptor = None
