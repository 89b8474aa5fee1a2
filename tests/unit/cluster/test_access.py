"""Joining a cluster that answers strangers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from actors.cluster.access import answers_strangers, check_access
from actors.errors import ServiceUnavailable


@contextmanager
def head(refusal: grpc.StatusCode | None) -> Iterator[str]:
    """The address of something that answers as a head node does, or refuses."""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            assert details.method == "/ray.rpc.NodeInfoGcsService/CheckAlive"
            return grpc.unary_unary_rpc_method_handler(self.answer)

        def answer(self, request: bytes, context: Any) -> bytes:
            assert "authorization" not in {key for key, _ in context.invocation_metadata()}
            if refusal is not None:
                context.abort(refusal, "no")
            return b""

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers([Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("RAY_AUTH_MODE", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("refusal", "answers"),
    [(None, True), (grpc.StatusCode.UNAUTHENTICATED, False), (grpc.StatusCode.INTERNAL, None)],
)
def test_a_head_is_asked_without_a_token(refusal: grpc.StatusCode | None, answers: bool | None) -> None:
    with head(refusal) as address:
        assert answers_strangers(address) is answers


def test_several_open_nodes_are_refused_with_a_hint() -> None:
    with head(None) as address, pytest.raises(ServiceUnavailable, match="2 nodes and no authentication") as refused:
        check_access(address, nodes=2)
    assert "RAY_AUTH_MODE=token" in str(refused.value.hint)


def test_a_token_of_ours_does_not_close_an_open_cluster(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RAY_AUTH_MODE", "token")
    with head(None) as address, pytest.raises(ServiceUnavailable):
        check_access(address, nodes=2)


def test_a_cluster_that_refuses_strangers_is_joined() -> None:
    with head(grpc.StatusCode.UNAUTHENTICATED) as address:
        check_access(address, nodes=2)


def test_one_node_is_joined() -> None:
    with head(None) as address:
        check_access(address, nodes=1)


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_USE_TLS", "1")])
def test_the_operator_may_say_who_guards_it(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with head(None) as address:
        check_access(address, nodes=2)


def test_without_an_answer_our_own_token_decides(environment: pytest.MonkeyPatch) -> None:
    with head(grpc.StatusCode.INTERNAL) as address:
        with pytest.raises(ServiceUnavailable):
            check_access(address, nodes=2)
        environment.setenv("RAY_AUTH_MODE", "token")
        check_access(address, nodes=2)
