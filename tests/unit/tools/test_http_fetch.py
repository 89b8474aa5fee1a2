"""What a page's text becomes: any charset a server names is decoded in linear time, and others run meanwhile."""

from __future__ import annotations

import asyncio
import encodings.aliases
import itertools
from typing import Any, cast

import pytest

from actors.tools.base import ToolContext
from actors.tools.egress import GuardedClient, OutboundResponse
from actors.tools.http_fetch import HttpFetch, HttpFetchArguments, decoded


class Page:
    """A client whose every answer is this body."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self._body, self._content_type = body, content_type

    async def request(self, method: str, url: str) -> OutboundResponse:
        headers = {"Content-Type": self._content_type}
        return OutboundResponse(status=200, url=url, headers=headers, body=self._body, truncated=False)


async def fetch(context: ToolContext, body: bytes, content_type: str) -> Any:
    tool = HttpFetch(cast("GuardedClient", Page(body, content_type)), 1.0)
    return (await tool.run(HttpFetchArguments("http://example.com/"), context)).data["text"]


@pytest.mark.parametrize(
    "charset",
    ["utf-8", "UTF8", "utf-16", "utf-16le", "UTF-16BE", "gb2312", "GBK", "gb18030", "Shift_JIS", "EUC-JP", "Big5"],
)
async def test_known_charsets(context: ToolContext, charset: str) -> None:
    body = "一二三 abc".encode(charset)
    assert await fetch(context, body, f'text/html; charset="{charset}"') == "一二三 abc"


@pytest.mark.parametrize(
    ("charset", "text"),
    [("euc-kr", "한국어"), ("koi8-r", "Привет"), ("KOI8-U", "Привіт"), ("windows-1251", "Привет"), ("cp1252", "Größe"),
     ("latin-1", "Größe"), ("ISO-8859-15", "10 €"), ("iso-8859-7", "Γειά"), ("us-ascii", "plain")],
)  # fmt: skip
async def test_known_charsets_of_one_script(context: ToolContext, charset: str, text: str) -> None:
    assert await fetch(context, text.encode(charset), f"text/plain; charset={charset}") == text


@pytest.mark.parametrize(
    "charset",
    ["punycode", "PUNYCODE", "idna", "unicode_escape", "raw-unicode-escape", "utf-7", "utf-32", "undefined", "hz",
     "base64", "rot13", "zlib", "iso-8859-12", "iso-8859-99", "utf-8-sig", "nothing", "", "x" * 5000, "utf-8\0"],
)  # fmt: skip
async def test_any_other_charset_is_read_as_utf8(context: ToolContext, charset: str) -> None:
    body = "Größe-1a2b \\u0041 &AGE-".encode() + b"\xff"
    assert await fetch(context, body, f"text/plain; charset={charset}") == "Größe-1a2b \\u0041 &AGE-�"


async def test_no_codec_of_python_is_slow_here() -> None:
    """`punycode` takes quadratic time: as UTF-8 the text comes back as it was sent."""
    text = "a-" + "b1" * 32_768
    for charset in {"punycode", "idna", "unicode_escape"} | set(encodings.aliases.aliases.values()):
        if charset.startswith(("utf_16", "utf_32")):
            continue
        assert await decoded(text.encode(), charset) == text


async def test_a_character_across_parts_stays_whole() -> None:
    for charset, lead in itertools.product(("utf-8", "gb18030", "utf-16-le"), range(4)):
        text = "a" * lead + "世🎉" * 40_000
        assert await decoded(text.encode(charset), charset.replace("-le", "le")) == text
    assert await decoded("世".encode()[:2], "utf-8") == "�"


async def test_others_run_while_a_long_text_is_decoded() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    await decoded(b"x" * (1 << 20), "utf-8")
    running.cancel()
    assert turns >= 16


async def test_what_is_no_text_is_not_decoded(context: ToolContext) -> None:
    assert await fetch(context, b"\x89PNG", "image/png; charset=utf-8") == "(4 bytes of image/png, not shown)"
