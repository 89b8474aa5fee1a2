"""`python -m scripts.chaos_runs.serve serve --config FILE`: `wunder serve` with several pools on this machine.

The product keeps one pool on each node. Here its supervisor is told of several nodes, which are all this one: it
starts, watches and replaces their pools (and gateways) as it would on as many machines.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gateway.serve as product
from actors.cluster.environment import prepare_environment
from gateway.__main__ import main
from scripts.chaos_runs.options import the_plan

_DIGITS = 2
"""How many of a told node's id are its number; the rest is the real node's id."""


def prepare(data_dir: Path) -> None:
    """Ray reads its environment when it is imported, so what imports it is changed after that."""
    prepare_environment(data_dir)
    from actors.cluster import fleet  # noqa: PLC0415
    from actors.placement import Node  # noqa: PLC0415
    from scripts.chaos_runs import services  # noqa: PLC0415

    alive_nodes = fleet.alive_nodes

    def told() -> list[Node]:
        pools = range(the_plan().pools)
        return [Node(f"{number:0{_DIGITS}}{node.node_id}", node.cpus) for node in alive_nodes() for number in pools]

    async def start(shell: Any, name: str, node_id: str, factory: str, settings: bytes, *, restarts: int) -> Any:
        return await services.start(shell, name, node_id[_DIGITS:], factory, settings, restarts=restarts)

    fleet.alive_nodes = told
    fleet.start = start


if __name__ == "__main__":
    product.prepare_environment = prepare
    sys.exit(main())
