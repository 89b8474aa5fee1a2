"""The shell around a service: a start that failed is tried again, and `Describe` tells what the shell knows."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest

from actors.cluster.shells import Directory, fingerprint
from actors.errors import StorageUnavailable
from actors.handles import ask, tell
from actors.messages import Describe, Drain, Sweep, decode_command, encode
from actors.replies import Description, Done, to_failed

FACTORY = "service_of_a_test:make"


class Service:
    """Starts once its `failures` are used up and `gate` is open."""

    def __init__(self) -> None:
        self.failures = 0
        self.starts = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.describes = True

    async def start(self) -> None:
        self.starts += 1
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("no database")

    async def stop(self) -> None: ...

    async def handle(self, data: bytes) -> bytes:
        assert self.starts, "called before it was started"
        if isinstance(decode_command(data), Describe):
            broken = to_failed(StorageUnavailable("no numbers"))
            return encode(Description(gauges={"x": 1.0}, info={"pid": 7}) if self.describes else broken)
        return encode(Done())


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    module = SimpleNamespace(make=lambda name, node_id, settings: service)
    monkeypatch.setitem(sys.modules, FACTORY.partition(":")[0], module)
    return service


@pytest.fixture
def shell(service: Service) -> Directory:
    return Directory(FACTORY, "directory", "node", b"settings")


async def test_a_start_that_failed_is_tried_again_by_the_next_call(service: Service, shell: Directory) -> None:
    service.failures = 2
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            await shell.call(encode(Sweep()))
    await tell(shell.call, Sweep())
    await tell(shell.call, Sweep())
    assert service.starts == 3


async def test_who_calls_during_a_start_waits_for_it(service: Service, shell: Directory) -> None:
    service.gate.clear()
    calls = [asyncio.create_task(tell(shell.call, Sweep())) for _ in range(3)]
    starting = asyncio.create_task(shell.start())
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    service.gate.set()
    await asyncio.gather(*calls[1:], starting)
    assert service.starts == 1


async def test_it_is_started_once(service: Service, shell: Directory) -> None:
    await shell.start()
    await shell.start()
    await tell(shell.call, Sweep())
    assert service.starts == 1


async def test_a_description_tells_the_settings_and_whether_it_drains(shell: Directory) -> None:
    described = await ask(shell.call, Describe(), Description)
    assert described.gauges == {"x": 1.0}
    assert described.info == {"pid": 7, "settings": fingerprint(b"settings"), "draining": False, "node_id": "node"}
    await tell(shell.call, Drain(grace_s=30.0))
    assert (await ask(shell.call, Describe(), Description)).info["draining"]


async def test_a_description_that_failed_stays_a_failure(service: Service, shell: Directory) -> None:
    service.describes = False
    with pytest.raises(StorageUnavailable, match="no numbers"):
        await ask(shell.call, Describe(), Description)


def test_other_settings_have_another_fingerprint() -> None:
    assert fingerprint(b"a") == fingerprint(b"a") != fingerprint(b"b")
