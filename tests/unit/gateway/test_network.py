from __future__ import annotations

from ipaddress import ip_address

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gateway.network import ClientNetworks, network_of

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::1")


class _Peer:
    """A transport, as far as the peer's name goes."""

    def __init__(self, peer: str | None) -> None:
        self._peer = peer

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self._peer, 4711) if name == "peername" and self._peer else default

    def is_closing(self) -> bool:
        return False


def request_from(peer: str | None, *headers: tuple[str, str]) -> web.Request:
    from multidict import CIMultiDict

    return make_mocked_request("GET", "/", headers=CIMultiDict(headers), transport=_Peer(peer))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["1.1.1.1"], "198.51.100.7"),  # forged: the peer is nobody's proxy
        ("198.51.100.7", ["10.0.0.1, 1.1.1.1"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        (
            "10.0.0.1",
            ["1.1.1.1, 198.51.100.7"],
            "198.51.100.7",
        ),  # what the client wrote itself is on the left
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7"], "198.51.100.7"),  # also as a header of its own
        ("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.1.2.3, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, garbage"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, "], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:5000"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::5]:5000"], "2001:db8::5"),
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("10.0.0.1", [", ".join(["198.51.100.7"] + ["10.0.0.2"] * 40)], "10.0.0.2"),
        ("::ffff:198.51.100.7", [], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("2001:db8:ffff::1", ["2001:db8::5"], "2001:db8::5"),
        ("2001:db8:ffff::2", ["2001:db8::5"], "2001:db8:ffff::2"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, ["198.51.100.7"], None),
    ],
)
def test_the_client_behind_trusted_proxies(peer: str | None, forwarded: list[str], client: str | None) -> None:
    request = request_from(peer, *(("X-Forwarded-For", each) for each in forwarded))
    found = ClientNetworks(PROXIES).address(request)
    assert found == (None if client is None else ip_address(client))


def test_without_trusted_proxies_the_header_changes_nothing() -> None:
    request = request_from("127.0.0.1", ("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-Proto", "https"))
    assert ClientNetworks().network(request) == "127.0.0.1"
    assert ClientNetworks().scheme(request) == "http"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        (None, "local"),
    ],
)
def test_limits_are_counted_by_network(address: str | None, network: str) -> None:
    assert network_of(None if address is None else ip_address(address)) == network


@pytest.mark.parametrize(
    ("peer", "forwarded", "scheme"),
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "http, https", "https"),
        ("10.0.0.1", "gopher", "http"),
        ("198.51.100.7", "https", "http"),
    ],
)
def test_the_scheme_comes_from_a_trusted_proxy_only(peer: str, forwarded: str, scheme: str) -> None:
    assert ClientNetworks(PROXIES).scheme(request_from(peer, ("X-Forwarded-Proto", forwarded))) == scheme


@pytest.mark.parametrize(
    ("peername", "key"),
    [
        (("198.51.100.7", 5), "198.51.100.7"),
        (("2001:db8::5", 5, 0, 0), "2001:db8::/64"),
        (("10.0.0.1", 5), None),  # a proxy's socket carries many clients
        ("", "local"),
        (None, "local"),
    ],
)
def test_whose_a_socket_is(peername: object, key: str | None) -> None:
    assert ClientNetworks(["10.0.0.0/8"]).of_peer(peername) == key
