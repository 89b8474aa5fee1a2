"""Finding and calling processes over Ray."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.errors import ServiceUnavailable
from actors.handles import Call

NAMESPACE = "wunder"


class RayReach:
    """Handles are cached by name; a process that died is looked up anew."""

    def __init__(self) -> None:
        self._calls: dict[str, _RayCall] = {}

    def actor(self, name: str) -> Call:
        call = self._calls.get(name)
        if call is None:
            if len(self._calls) > _MAX_CACHED:
                self._calls.clear()
            call = self._calls[name] = _RayCall(name)
        return call

    async def gone(self, name: str) -> None:
        """Return once the process has ended for good (one pending call per process that is watched)."""
        while True:
            handle = await find(name)
            if handle is None:
                return
            try:
                await handle.stay.remote()
            except RayActorError:
                await asyncio.sleep(0.05)
            except RayTaskError:
                return


_MAX_CACHED = 4096


class _RayCall:
    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    async def __call__(self, data: bytes) -> bytes:
        handle = self._handle
        if handle is None:
            handle = self._handle = await find(self._name)
        if handle is None:
            raise ServiceUnavailable(f"{self._name} is not there", retry_after_s=0.5)
        try:
            answer: bytes = await handle.call.remote(data)
        except RayTaskError as error:
            raise ServiceUnavailable(f"{self._name} failed: {error.cause}", retry_after_s=1.0) from None
        except RayError:
            self._handle = None
            raise ServiceUnavailable(f"{self._name} is not answering", retry_after_s=0.5) from None
        return answer


async def find(name: str) -> Any:
    """The handle of a named actor that is alive, or None. The lookup blocks a thread, not the loop."""
    try:
        return await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
    except ValueError:
        return None
