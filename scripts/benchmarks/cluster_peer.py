"""A process that joins the server's Ray: `python -m scripts.benchmarks.cluster_peer ADDRESS TOKEN CONFIG DATA_DIR`.

Lines on stdin, one JSON answer each: `pool` starts another worker pool with the product's own factory (it is deployed
as one pool per node; here both are on this one), `wake` wakes the pools, `describe` adds their numbers up.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

_TIMEOUT_S = 30.0


async def serve(config: str, data_dir: str) -> None:
    """Answer lines until there are no more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("{}", flush=True)
    while line := (await reader.readline()).decode().strip():
        answer = await {"pool": _pool, "wake": _wake, "describe": _describe}[line](config, data_dir)
        print(msgspec.json.encode(answer).decode(), flush=True)


async def _pool(config: str, data_dir: str) -> dict[str, Any]:
    from actors.cluster.fleet import RayFleet, pool_prefix  # noqa: PLC0415 - Ray reads its environment at import
    from gateway.serve import with_paths  # noqa: PLC0415
    from gateway.settings_loader import load_settings  # noqa: PLC0415

    settings = with_paths(load_settings(config, {}, {}), Path(data_dir))
    fleet = RayFleet(msgspec.msgpack.encode(settings.for_actors()), b"", "")
    (node,) = await fleet.nodes()
    name = f"{pool_prefix(node.node_id)}{secrets.token_hex(4)}"
    await fleet.start(name, node.node_id)
    return {"pool": name}


async def _pools() -> list[Any]:
    from actors.cluster.launcher import POOL_PREFIX, named  # noqa: PLC0415
    from actors.cluster.reach import RayReach  # noqa: PLC0415

    reach = RayReach()
    return [reach.actor(name) for name in await asyncio.to_thread(named, POOL_PREFIX)]


async def _wake(config: str, data_dir: str) -> dict[str, Any]:
    from actors.handles import tell  # noqa: PLC0415
    from actors.messages import Wake  # noqa: PLC0415

    pools = await _pools()
    await asyncio.gather(*(tell(pool, Wake(), timeout_s=_TIMEOUT_S) for pool in pools))
    return {"pools": len(pools)}


async def _describe(config: str, data_dir: str) -> dict[str, Any]:
    """Statements and the pools' counts, summed over the pools."""
    from actors.messages import Describe, encode  # noqa: PLC0415
    from actors.replies import Description, decode_reply  # noqa: PLC0415

    statements: Counter[str] = Counter()
    gauges: Counter[str] = Counter()
    for pool in await _pools():
        reply = decode_reply(await pool(encode(Describe())))
        assert isinstance(reply, Description)
        statements.update(reply.info["statements"])
        gauges.update({name: value for name, value in reply.gauges.items() if name.startswith("pool_")})
    return {"statements": dict(statements), "gauges": dict(gauges)}


def main() -> None:
    address, token, config, data_dir = sys.argv[1:]
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    from actors.cluster.local import attach, stop_local  # noqa: PLC0415

    attach(address)
    try:
        asyncio.run(serve(config, data_dir))
    finally:
        stop_local()


if __name__ == "__main__":
    main()
