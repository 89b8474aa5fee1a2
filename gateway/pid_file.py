"""`{data_dir}/wunder.pid`: which process serves from here. A lock says whether it lives: no stale number misleads."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "wunder.pid"


class PidFile:
    """The file of one data folder. The lock ends with its holder's process, however that ends."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / NAME
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Write our number there and keep the lock; False if another process has it."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def leave(self) -> None:
        """Empty the file and give the lock up."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def running(self) -> int | None:
        """The number of the process that serves, None if there is none."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(descriptor)
        return None
