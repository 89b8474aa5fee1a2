"""Reading a web page, through the guarded client only."""

from __future__ import annotations

import asyncio
import codecs
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from actors.tools.base import ToolContext, ToolResult
from actors.tools.egress import GuardedClient, OutboundResponse
from actors.tools.egress_policy import MAX_URL_CHARS

_TEXT_TYPES = ("application/json", "application/xml", "application/javascript", "application/yaml", "")
# What browsers know and what takes linear time: Python has codecs that do not (punycode, idna).
_CHARSET = re.compile(
    r"utf-?8|(us-)?ascii|latin-?1|iso-8859-(1[013-6]|[1-9])|(windows-|cp)125[0-8]|utf-16([lb]e)?|gb2312|gbk|gb18030"
    r"|shift-jis|euc-(jp|kr)|big5|koi8-[ru]"
)
_DECODED_AT_ONCE = 65_536


class HttpFetchArguments(msgspec.Struct, frozen=True):
    """What to fetch."""

    url: Annotated[str, Meta(description="An http or https URL.", max_length=MAX_URL_CHARS)]
    method: Annotated[Literal["GET", "HEAD"], Meta(description="HEAD gives no text.")] = "GET"


class HttpFetch:
    """Gives the status, the content type and the text of a public page."""

    name = "http_fetch"
    description = "Fetches a public web page or file over http or https and returns its text."
    parallel_safe = True
    repeat_safe = True
    arguments: type[msgspec.Struct] = HttpFetchArguments

    def __init__(self, client: GuardedClient, timeout_s: float) -> None:
        self._client = client
        self.timeout_s = timeout_s

    async def run(self, arguments: HttpFetchArguments, context: ToolContext) -> ToolResult:
        response = await self._client.request(arguments.method, arguments.url)
        data = {
            "status": response.status,
            "url": response.url,
            "content_type": response.content_type,
            "truncated": response.truncated,
            "text": await _text(response),
        }
        return ToolResult(ok=True, data=data)


async def _text(response: OutboundResponse) -> str:
    kind = response.content_type
    if not (kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml"))):
        return f"({len(response.body)} bytes of {kind}, not shown)"
    return await decoded(response.body, response.charset)


async def decoded(body: bytes, charset: str) -> str:
    """The text, as UTF-8 if the charset is none that is known; others run between its parts."""
    name = charset.lower().replace("_", "-")
    decoder = codecs.getincrementaldecoder(name if _CHARSET.fullmatch(name) else "utf-8")("replace")
    pieces = []
    for at in range(0, len(body), _DECODED_AT_ONCE):
        pieces.append(decoder.decode(body[at : at + _DECODED_AT_ONCE]))
        await asyncio.sleep(0)
    pieces.append(decoder.decode(b"", final=True))
    return "".join(pieces)
