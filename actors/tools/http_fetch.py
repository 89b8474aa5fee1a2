"""Reading a web page, through the guarded client only."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from actors.tools.base import ToolContext, ToolResult
from actors.tools.egress import GuardedClient, OutboundResponse
from actors.tools.egress_policy import MAX_URL_CHARS

_TEXT_TYPES = ("application/json", "application/xml", "application/javascript", "application/yaml", "")


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
            "text": _text(response),
        }
        return ToolResult(ok=True, data=data)


def _text(response: OutboundResponse) -> str:
    kind = response.content_type
    if not (kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml"))):
        return f"({len(response.body)} bytes of {kind}, not shown)"
    try:
        return response.body.decode(response.charset, "replace")
    except (LookupError, ValueError):
        return response.body.decode("utf-8", "replace")
