"""P18: guarded requests never reach private addresses. A trap on loopback must see no connection."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from actors.tools.addresses import is_public, parse_address
from actors.tools.egress import EgressFailed, EgressPolicy, EgressRefused, GuardedClient
from actors.tools.egress_connector import AddressBlocked, GuardedConnector, GuardedResolver

Reply = Callable[[bytes], bytes]


class Site:
    """A raw HTTP server on loopback: counts connections, answers with what `reply` makes of the request's head."""

    def __init__(self) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.reply: Reply = lambda head: page(b"secret")
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            writer.write(self.reply(head))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def page(body: bytes, extra: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n" % (len(body), extra)
    return head + body


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


class Names(AbstractResolver):
    """Answers by name, one list after the other (rebinding); the last stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        self.asked.append(host)
        name = host.rstrip(".").partition(".")[0]
        if name not in self.answers:
            raise OSError(None, "no such name")
        turns = self.answers[name]
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        pass


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)


@pytest.fixture
async def trap() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()
    await server.wait_closed()


@pytest.fixture
async def client() -> AsyncIterator[Callable[..., GuardedClient]]:
    made: list[GuardedClient] = []

    def build(*allow: str, public: bool = True, resolver: AbstractResolver | None = None, **given: Any) -> Any:
        options = {"timeout_s": 5.0, "max_bytes": 10_000, **given}
        made.append(GuardedClient(EgressPolicy(allow, public=public), resolver=resolver, **options))
        return made[-1]

    yield build
    for one in made:
        await one.close()


async def refused(request: Awaitable[object]) -> str:
    with pytest.raises(EgressRefused) as caught:
        await request
    return caught.value.message


SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0",  # noqa: S104
    "2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1",
    "0x7f.1", "0177.0.0.1", "0177.0.0.01", "127.0.0.1.", "127.0.0.1..", "00000127.0.0.1", "127.000.000.001", "0x7F.1.",
    "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "１２７.0.0.1", "127。0。0。1", "①②⑦.⓪.⓪.①", "127.0.0.1%00.example.com",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:1::1]",
    "[2001:0:7f00:1::]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[fe80::1]", "[fe80::1%25lo]", "[::1%25lo]",
    "[::1%lo]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]", "[100::1]", "[2001:db8::1]", "[3fff::1]",
    "169.254.169.254", "169.254.170.2", "0xA9FEA9FE", "2852039166", "[::ffff:169.254.169.254]", "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "192.88.99.1", "user@127.0.0.1", "example.com@127.0.0.1", "127.0.0.1#@example.com", "127.0.0.1\\@example.com",
    "127.0.0.1\t", "\n127.0.0.1", "127.0.0.1 ", "1.1.1.1 &@127.0.0.1", "",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_a_private_address_connects(client: Any, trap: Site, host: str) -> None:
    # The port of the trap is allowed, so that only the address stands in the way.
    guarded = client(f"never.example.com:{trap.port}", resolver=Names())
    for url in (f"http://{host}:{trap.port}/", f"http://{host}/", f"https://{host}/"):
        with pytest.raises((EgressRefused, EgressFailed)) as caught:
            await guarded.request("GET", url)
        if host.isascii() and host:
            assert isinstance(caught.value, EgressRefused), url
    assert trap.connections == 0


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://example.com/", "gopher://127.0.0.1:70/_x", "javascript:1", "//example.com/",
     "example.com",
     "http:///x", "http://", "http://example.com:99999/", "http://example.com:22/", "https://example.com:8080/",
     "http://example.com:0/", "http://exa mple.com/", "http://[::1/", "http://" + "a" * 5000, "unix:/run/x.sock"],
)  # fmt: skip
async def test_only_http_on_its_ports(client: Any, url: str) -> None:
    await refused(client(resolver=Names()).request("GET", url))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.1.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"],
)
async def test_names_that_lead_inside(client: Any, trap: Site, address: str) -> None:
    guarded = client(f"evil.example.com:{trap.port}", resolver=Names(evil=[[address]]))
    message = await refused(guarded.request("GET", f"http://evil.example.com:{trap.port}/"))
    assert address not in message
    assert trap.connections == 0


async def test_inner_answers_are_dropped_from_mixed_ones() -> None:
    names = Names(mixed=[["127.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"]])
    answers = await GuardedResolver(EgressPolicy(), names).resolve("mixed", 80)
    assert [answer["host"] for answer in answers] == ["8.8.8.8", "2606:4700::1111"]


async def test_rebinding_between_check_and_connect(client: Any, trap: Site) -> None:
    names = Names(evil=[["8.8.8.8"], ["127.0.0.1"]])
    await GuardedResolver(EgressPolicy(), names).resolve("evil", 80)
    guarded = client(f"evil.example.com:{trap.port}", resolver=names)
    for _ in range(3):
        await refused(guarded.request("GET", f"http://evil.example.com:{trap.port}/"))
    assert trap.connections == 0
    assert len(names.asked) == 4


async def test_the_socket_is_refused_even_if_the_resolver_is_fooled(
    client: Any, trap: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(evil=[["127.0.0.1"]])
    monkeypatch.setattr(GuardedResolver, "resolve", lambda self, *a, **k: names.resolve(*a, **k))
    guarded = client(f"evil.example.com:{trap.port}", resolver=names)
    await refused(guarded.request("GET", f"http://evil.example.com:{trap.port}/"))
    assert trap.connections == 0


async def test_the_peer_is_refused_before_a_byte_is_sent(
    client: Any, trap: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(evil=[["127.0.0.1"]])
    monkeypatch.setattr(GuardedResolver, "resolve", lambda self, *a, **k: names.resolve(*a, **k))
    monkeypatch.setattr(GuardedConnector, "_make_socket", lambda self, info: socket.socket(*info[:3]))
    guarded = client(f"evil.example.com:{trap.port}", resolver=names)
    await refused(guarded.request("GET", f"http://evil.example.com:{trap.port}/"))
    assert trap.heads == []


async def test_control_without_a_guard_the_trap_is_reached(
    client: Any, trap: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EgressPolicy, "address_allowed", lambda self, text, port: True)
    guarded = client(f"evil.example.com:{trap.port}", resolver=Names(evil=[["127.0.0.1"]]))
    assert (await guarded.request("GET", f"http://evil.example.com:{trap.port}/")).body == b"secret"
    assert trap.connections == 1


@pytest.mark.parametrize(
    "url",
    ["http://" + "".join(chr(0x4E00 + n) for n in range(4000)) + "/", "https://" + "ü" * 400, "http://" + "a" * 400,
     "http://u:" + "p" * 400 + "@example.com/"],
)  # fmt: skip
async def test_a_host_that_is_too_long_is_not_even_parsed(client: Any, url: str) -> None:
    assert "host is longer" in await refused(client(resolver=Names()).request("GET", url))


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/", "http://localhost/", "http://[::1]/", "file:///etc/passwd", "http://2130706433/",
     "//127.0.0.2/", "http://127.0.0.1:1/", "http://evil.example.com/", "http://[", "http://u:p@example.com/"],
)  # fmt: skip
async def test_redirects_inside_are_refused(client: Any, trap: Site, location: str, status: int) -> None:
    trap.reply = lambda head: redirect(location, status)
    names = Names(localhost=[["127.0.0.1"]], evil=[["10.0.0.1"]])
    guarded = client(f"127.0.0.1:{trap.port}", resolver=names)
    await refused(guarded.request("GET", f"http://127.0.0.1:{trap.port}/"))
    assert trap.connections == 1


@pytest.mark.parametrize("prefix", ["http://", "//", "/\t/", "HTTP:\t//", " https://"])
async def test_a_redirect_to_a_host_that_is_too_long(client: Any, trap: Site, prefix: str) -> None:
    host = "".join(chr(0x4E00 + n) for n in range(2500))
    trap.reply = lambda head: redirect(f"{prefix}{host}/")
    guarded = client(f"127.0.0.1:{trap.port}", resolver=Names())
    assert "host is longer" in await refused(guarded.request("GET", f"http://127.0.0.1:{trap.port}/"))


async def test_redirects_are_counted(client: Any, trap: Site) -> None:
    trap.reply = lambda head: redirect(f"/{len(trap.heads)}")
    guarded = client(f"127.0.0.1:{trap.port}")
    assert "3 times" in await refused(guarded.request("GET", f"http://127.0.0.1:{trap.port}/"))
    assert trap.connections == 4
    response = await guarded.request("GET", f"http://127.0.0.1:{trap.port}/", follow_redirects=False)
    assert response.status == 302


async def test_credentials_stay_with_their_origin(client: Any, trap: Site) -> None:
    def reply(head: bytes) -> bytes:
        if b"GET /start" in head:
            return redirect("/same")
        return redirect(f"http://other.example.com:{trap.port}/end") if b"GET /same" in head else page(b"done")

    trap.reply = reply
    allow = (f"127.0.0.0/8:{trap.port}", f"other.example.com:{trap.port}")
    guarded = client(*allow, resolver=Names(other=[["127.0.0.1"]]))
    headers = {"Authorization": "Bearer s3cret", "Cookie": "a=s3cret", "X-Api-Key": "s3cret", "Accept": "text/plain"}
    response = await guarded.request("GET", f"http://127.0.0.1:{trap.port}/start", headers=headers)
    assert response.body == b"done"
    start, same, end = trap.heads
    assert start.count(b"s3cret") == same.count(b"s3cret") == 3
    assert b"s3cret" not in end
    assert b"text/plain" in end


async def test_a_body_is_not_carried_to_another_origin(client: Any, trap: Site) -> None:
    trap.reply = lambda head: redirect(f"http://localhost:{trap.port}/", 307)
    guarded = client(f"127.0.0.1:{trap.port}", f"localhost:{trap.port}", resolver=Names(localhost=[["127.0.0.1"]]))
    await refused(guarded.request("POST", f"http://127.0.0.1:{trap.port}/", body=b"private"))
    assert trap.connections == 1


async def test_a_post_becomes_a_get_after_303(client: Any, trap: Site) -> None:
    trap.reply = lambda head: redirect("/x", 303) if head.startswith(b"POST") else page(b"ok")
    guarded = client(f"127.0.0.1:{trap.port}")
    assert (await guarded.request("POST", f"http://127.0.0.1:{trap.port}/", body=b"x")).body == b"ok"
    assert trap.heads[1].startswith(b"GET /x")


# Allow-list


async def test_allow_list_only(client: Any, trap: Site) -> None:
    names = Names(api=[["127.0.0.1"]], other=[["8.8.8.8"]])
    listed = (f"api.example.com:{trap.port}", "*.good.example", f"127.0.0.1:{trap.port}")
    guarded = client(*listed, public=False, resolver=names)
    assert (await guarded.request("GET", f"http://API.example.com.:{trap.port}/")).status == 200
    for url in ("http://other.example.com/", "http://8.8.8.8/", "http://good.example/", "http://evilgood.example/"):
        await refused(guarded.request("GET", url))
    assert EgressPolicy(("*.good.example",), public=False).check_url("https://a.b.good.example/").host
    assert names.asked == ["api.example.com."]


@pytest.mark.parametrize("entry", ["", "*", "a*b.com", "0x7f.1", "127.1", "10.0.0.0/99", "host:port", "http://x"])
def test_entries_that_mean_nothing(entry: str) -> None:
    with pytest.raises(ValueError):
        EgressPolicy((entry,))


# Bounds


async def test_bodies_are_cut(client: Any, trap: Site) -> None:
    trap.reply = lambda head: page(b"x" * 50_000) if head.startswith(b"GET") else page(b"")
    guarded = client(f"127.0.0.1:{trap.port}")
    response = await guarded.request("GET", f"http://127.0.0.1:{trap.port}/")
    assert (len(response.body), response.truncated) == (10_000, True)
    head = await guarded.request("HEAD", f"http://127.0.0.1:{trap.port}/")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_bodies_are_cut_after_inflating(client: Any, trap: Site, encoding: str) -> None:
    squeeze = gzip.compress if encoding == "gzip" else zlib.compress
    extra = f"Content-Encoding: {encoding}\r\n".encode()
    guarded = client(f"127.0.0.1:{trap.port}")
    trap.reply = lambda head: page(squeeze(b"hello"), extra)
    assert (await guarded.request("GET", f"http://127.0.0.1:{trap.port}/")).body == b"hello"
    bomb = squeeze(bytes(50_000_000))
    trap.reply = lambda head: page(bomb, extra)
    response = await guarded.request("GET", f"http://127.0.0.1:{trap.port}/")
    assert (len(response.body), response.truncated) == (10_000, True)
    trap.reply = lambda head: page(b"not compressed", extra)
    with pytest.raises(EgressFailed):
        await guarded.request("GET", f"http://127.0.0.1:{trap.port}/")


async def test_unknown_compression_is_refused(client: Any, trap: Site) -> None:
    trap.reply = lambda head: page(b"x", b"Content-Encoding: br\r\n")
    with pytest.raises(EgressFailed):
        await client(f"127.0.0.1:{trap.port}").request("GET", f"http://127.0.0.1:{trap.port}/")


@pytest.mark.parametrize("reply", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"])
async def test_what_is_not_http_fails(client: Any, trap: Site, reply: bytes) -> None:
    trap.reply = lambda head: reply
    with pytest.raises(EgressFailed) as caught:
        await client(f"127.0.0.1:{trap.port}").request("GET", f"http://127.0.0.1:{trap.port}/")
    assert caught.value.retryable


async def test_time_is_bounded(client: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        guarded = client(f"127.0.0.1:{port}", timeout_s=0.1)
        with pytest.raises(EgressFailed, match="within"):
            await guarded.request("GET", f"http://127.0.0.1:{port}/")


async def test_names_without_an_address_fail(client: Any) -> None:
    with pytest.raises(EgressFailed, match="no address"):
        await client(resolver=Names()).request("GET", "http://nowhere.example.com/")


async def test_proxies_of_the_environment_are_ignored(client: Any, trap: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{trap.port}")
    with pytest.raises(EgressFailed):
        await client(resolver=Names()).request("GET", "http://nowhere.example.com/")
    assert trap.connections == 0


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(parse_address(address))


def test_blocked_is_an_os_error() -> None:
    assert issubclass(AddressBlocked, OSError)
