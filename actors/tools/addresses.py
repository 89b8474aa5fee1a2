"""Which addresses are public. Our own deny list: `ipaddress.is_global` passes NAT64, 6to4, multicast and more."""

from __future__ import annotations

import ipaddress
import re

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_DENIED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and metadata services of some clouds
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, metadata of Oracle's cloud
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "168.63.129.16/32",  # Azure's host
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# Everything outside 2000::/3 is denied: ::, ::1, ::ffff:0:0/96 (mapped), 64:ff9b::/96 and 64:ff9b:1::/48 (NAT64),
# 100::/64 (discard), fc00::/7, fe80::/10, fec0::/10, ff00::/8.
_DENIED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo 2001::/32, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3ffe::/16",
        "3fff::/20",  # documentation
        "5f00::/16",
    )
)
# A host whose last label is a number is an address in some spelling (decimal, octal, hex, short).
_NUMERIC_HOST = re.compile(r"(?:^|\.)(?:\d+|0x[0-9a-f]*)$", re.IGNORECASE | re.ASCII)


def parse_address(text: str) -> IPAddress:
    """An address as the system gives it; `ValueError` if it is none or carries a zone."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError("an address with a zone")
    return address


def is_public(address: IPAddress) -> bool:
    """Whether anybody's server may have this address, and nothing near us."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _DENIED_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _DENIED_V6)


def looks_numeric(host: str) -> bool:
    """Whether some resolver would read the host as an address (`2130706433`, `0x7f.1`, `0177.0.0.1`, `::1`)."""
    return ":" in host or "%" in host or _NUMERIC_HOST.search(host.rstrip(".")) is not None
