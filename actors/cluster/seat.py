"""The supervisor's seat: of several `wunder serve` on one cluster one looks after it, the others stand by.

The seat is a named actor that belongs to the process which made it: Ray gives the name to one of them, and takes it
back when that process ends, however it ends. It guards no data (epochs do); two supervisors for a moment, as when a
node is cut off, cost no more than a process that is started twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from actors.cluster.reach import NAMESPACE, RayReach
from actors.errors import ServiceUnavailable

NAME = "supervisor"
_RETRY_S = 0.5


class Supervisor:
    """The actor: it does nothing but exist. Its name is what Ray's dashboard shows."""

    async def stay(self) -> None:
        """Never returns: the caller learns of its end."""
        await asyncio.Event().wait()

    async def ready(self) -> None: ...

    def __repr__(self) -> str:
        return f"Supervisor({NAME})"


class Seat:
    """One process's claim to it."""

    def __init__(self) -> None:
        self._reach = RayReach()
        self._handle: Any = None

    async def take(self) -> bool:
        """Take the seat if it is free."""
        try:
            handle = await asyncio.to_thread(_create)
            await handle.ready.remote()
        except (ValueError, RayActorError):  # the name is taken, or its holder has just gone
            return False
        except RayError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise ServiceUnavailable(
                f"the cluster's nodes cannot run our actors: {reason}",
                hint="is this version of wunder installed there?",
            ) from None
        self._handle = handle
        return True

    async def wait(self) -> None:
        """Stand by until it is ours."""
        while not await self.take():
            await self._reach.gone(NAME)
            await asyncio.sleep(_RETRY_S)

    async def lost(self) -> None:
        """Return when it is ours no more, as when somebody has killed the actor."""
        with contextlib.suppress(RayError):
            await self._handle.stay.remote()

    async def leave(self) -> None:
        """Give it up."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(ray.kill, handle)


def _create() -> Any:
    return ray.remote(Supervisor).options(name=NAME, namespace=NAMESPACE, num_cpus=0, max_concurrency=1000).remote()
