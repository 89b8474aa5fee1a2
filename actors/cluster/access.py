"""Who may use the Ray cluster that we join: whoever reaches the ports of one without authentication runs code on it."""

from __future__ import annotations

import os

import grpc  # type: ignore[import-untyped]

from actors.errors import ServiceUnavailable
from actors.logs import log

_MODE = "RAY_AUTH_MODE"
_QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_TIMEOUT_S = 5.0


def check_access(gcs_address: str, nodes: int) -> None:
    """Refuse several nodes that answer strangers, unless RAY_AUTH_MODE=disabled or RAY_USE_TLS says who guards them."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
        return  # Ray checks certificates on both sides
    mode = os.environ.get(_MODE, "").lower()
    answers = answers_strangers(gcs_address)
    if answers is None:
        # Without a token of our own we were let in as strangers ourselves.
        answers = mode != "token"
        log.warning("ray_access_unknown", address=gcs_address, assumed="open" if answers else "token")
    if not answers:
        return
    if nodes > 1 and mode != "disabled":
        raise ServiceUnavailable(
            f"the Ray cluster has {nodes} nodes and no authentication: whoever reaches its ports runs code on it",
            hint="start its nodes and `wunder serve` with RAY_AUTH_MODE=token and one token (`ray get-auth-token`); "
            "RAY_AUTH_MODE=disabled says that a private network guards it",
        )
    log.warning("ray_without_authentication", address=gcs_address, nodes=nodes)


def answers_strangers(gcs_address: str) -> bool | None:
    """Whether the cluster's head answers a call that carries no token; None if it says neither yes nor no."""
    with grpc.insecure_channel(gcs_address) as channel:
        try:
            channel.unary_unary(_QUESTION)(b"", timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            refused: bool = error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False if refused else None
    return True
