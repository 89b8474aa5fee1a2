"""A port for each pool in front of Postgres.

`stall 1`: from its next completion on, what pool 1 sends is held back; `flow 1`: it arrives now, all of it, in order.

A pool whose line stalls gives up, others take its tasks over, and then its statements arrive after all, also those of
connections that it has closed meanwhile: late writes of a former owner, the completion among them.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from scripts.chaos_runs.helper import say


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the proxy is told."""

    postgres_port: int
    ports: int


_COMPLETION = b'"status":"succeeded"'
"""In the terminal event that comes with every completion."""

_CANCEL = (80877102).to_bytes(4, "big")
"""A connection that begins so asks the server to cancel what another one does."""


class Gate:
    """The line of one pool."""

    def __init__(self) -> None:
        self.armed = self.stalled = False
        self.ends: set[End] = set()

    def arm(self) -> None:
        self.armed = True

    def saw(self, data: bytes) -> None:
        if self.armed and _COMPLETION in data:
            self.armed, self.stalled = False, True

    def flow(self) -> None:
        self.armed = self.stalled = False
        for end in list(self.ends):
            end.flush()


class End(asyncio.Protocol):
    """One end of a connection; what it gets is for its `other` end."""

    def __init__(self, gate: Gate, postgres_port: int | None) -> None:
        self._gate = gate
        self._postgres_port = postgres_port
        self._held: list[bytes | None] = []
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.other: End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._gate.ends.add(self)
        if self._postgres_port is not None:
            self._connecting = asyncio.create_task(self._connect(self._postgres_port))

    async def _connect(self, port: int) -> None:
        assert self._transport is not None
        server = End(self._gate, None)
        server.other = self
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", port)
        except OSError:
            self._gate.ends.discard(self)  # there is no server now
            self._transport.abort()
            return
        self.other = server
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self._gate.stalled and data[4:8] == _CANCEL:
            return  # it would arrive together with the statement that it is to cancel
        self._gate.saw(data)
        self._held.append(data)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._held.append(None)
        self.flush()

    def flush(self) -> None:
        if self._gate.stalled or self.other is None or self.other._transport is None:
            return
        held, self._held = self._held, []
        for data in held:
            if data is None:
                self.other._transport.close()
                self._gate.ends.discard(self)
            else:
                self.other._transport.write(data)


async def serve(work: Work) -> None:
    """Until stdin ends."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    gates = [Gate() for _ in range(work.ports)]
    ports = []
    for gate in gates:
        server = await loop.create_server(lambda gate=gate: End(gate, work.postgres_port), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    say(ports)
    while line := (await reader.readline()).decode():
        verb, number = line.split()
        gate = gates[int(number)]
        gate.arm() if verb == "stall" else gate.flow()


if __name__ == "__main__":
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Work)))
