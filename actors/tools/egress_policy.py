"""Where outbound requests may go: public-only, or only what the operator lists.

`http_allow_hosts` entries: a name (`api.example.com`), a suffix (`*.example.com`), an address or network
(`10.1.2.3`, `10.0.0.0/8`); each may end in `:port`. A listed name must still have public addresses: private ones are
reached only by listing the address or network itself, so that nobody's DNS decides. With `http_public`, every public
host may be reached besides.
"""

from __future__ import annotations

import contextlib
import ipaddress
from urllib.parse import urlsplit

import msgspec
from yarl import URL

from actors.errors import ToolError
from actors.tools.addresses import IPAddress, IPNetwork, is_public, looks_numeric, parse_address

DEFAULT_PORTS = (80, 443)
MAX_URL_CHARS = 4096
MAX_AUTHORITY_CHARS = 320


class EgressRefused(ToolError):
    """The request may not go there; nothing was sent. The same request will be refused again."""


class EgressFailed(ToolError):
    """It was sent, or could have been, and failed: unreachable, too slow, not HTTP."""

    retryable = True


class EgressUnreachable(EgressFailed):
    """There was no connection: nothing was sent."""


class _Entry(msgspec.Struct, frozen=True):
    """One line of the allow-list; `port` None means the default ports."""

    name: str
    network: IPNetwork | None
    port: int | None

    def has_name(self, host: str) -> bool:
        if self.network is not None:
            return False
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name

    def has_address(self, address: IPAddress) -> bool:
        return self.network is not None and address in self.network

    def has_port(self, port: int) -> bool:
        return port == self.port if self.port is not None else port in DEFAULT_PORTS


class EgressPolicy:
    """Checks URLs before a request and addresses before and after connecting."""

    def __init__(self, allow_hosts: tuple[str, ...] = (), *, public: bool = True) -> None:
        self._entries = tuple(_entry(text) for text in allow_hosts)
        self._public = public

    def check_url(self, text: str | URL) -> URL:
        """The URL, normalised, if its scheme, host and port are allowed; `EgressRefused` says which is not."""
        url = _parsed(text)
        if url.scheme not in ("http", "https"):
            raise EgressRefused("Only http and https URLs may be fetched.")
        if url.user is not None or url.password is not None:
            raise EgressRefused("A URL with a user name or password is not fetched.")
        host = (url.raw_host or "").rstrip(".").lower()
        port = url.port
        if not host or port is None:
            raise EgressRefused("The URL has no host.")
        if looks_numeric(host):
            self._check_literal(url, host, port)
        elif not self._name_allowed(host, port):
            raise EgressRefused(f"The host {host[:100]} (port {port}) may not be reached from here.")
        return url

    def address_allowed(self, text: str, port: int) -> bool:
        """Whether a connection to this address and port may be made, whatever name led there."""
        try:
            address = parse_address(text)
        except ValueError:
            return False
        if any(entry.has_address(address) and entry.has_port(port) for entry in self._entries):
            return True
        return is_public(address) and (port in DEFAULT_PORTS or any(entry.port == port for entry in self._entries))

    def _check_literal(self, url: URL, host: str, port: int) -> None:
        try:
            address = parse_address(host)
        except ValueError:
            raise EgressRefused("An address is fetched only in its plain spelling.") from None
        listed = any(entry.has_address(address) and entry.has_port(port) for entry in self._entries)
        public = self._public and is_public(address) and port in DEFAULT_PORTS
        if not listed and not public:
            raise EgressRefused(f"The address {address} (port {port}) may not be reached from here.")
        if (url.raw_host or "").endswith("."):
            raise EgressRefused("An address is fetched only in its plain spelling.")

    def _name_allowed(self, host: str, port: int) -> bool:
        if self._public and port in DEFAULT_PORTS:
            return True
        return any(entry.has_name(host) and entry.has_port(port) for entry in self._entries)


def _parsed(text: str | URL) -> URL:
    if isinstance(text, URL):
        return text
    if len(text) > MAX_URL_CHARS:
        raise EgressRefused(f"The URL is longer than {MAX_URL_CHARS} characters.")
    if any(c.isspace() or not c.isprintable() or c == "\\" for c in text.strip()):
        raise EgressRefused("The URL has spaces, backslashes or control characters in it.")
    try:
        check_authority(text)
        url = URL(text.strip())
        url.port  # noqa: B018 - a bad port shows only here
    except (ValueError, TypeError):
        raise EgressRefused("That is not a URL.") from None
    return url


def check_authority(text: str) -> None:
    """Refuse what no host can be before it is parsed: one in another script is encoded in quadratic time."""
    if len(urlsplit(text).netloc) > MAX_AUTHORITY_CHARS:
        raise EgressRefused(f"The URL's host is longer than {MAX_AUTHORITY_CHARS} characters.")


def _entry(text: str) -> _Entry:
    """`ValueError` for an entry that means nothing."""
    host, port = text.strip().lower(), None
    if host.count(":") == 1:
        host, _, digits = host.partition(":")
        port = int(digits)
    elif host.startswith("["):
        host, _, digits = host[1:].partition("]")
        port = int(digits[1:]) if digits else None
    network: IPNetwork | None = None
    with contextlib.suppress(ValueError):
        network = ipaddress.ip_network(host, strict=False)
    host = host.rstrip(".")
    if not host or (network is None and (looks_numeric(host) or "/" in host or "*" in host.removeprefix("*."))):
        raise ValueError(f"not a host, address or network: {text!r}")
    return _Entry(host, network, port)
