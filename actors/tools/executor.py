"""Runs one tool call: arguments decoded, time bounded, result cut; whatever goes wrong is a result for the model."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from actors.cancellation import Cancelled
from actors.errors import ToolError
from actors.logs import log
from actors.models.base import ToolCall
from actors.tools.base import Tool, ToolContext, ToolResult, WaitFor
from actors.tools.limits import NotJson, cut_data, cut_text

MAX_ARGUMENTS_BYTES = 1 << 20


async def run_tool(
    tool: Tool, call: ToolCall, context: ToolContext, *, max_result_bytes: int
) -> tuple[ToolResult, float, bool]:
    """The result, how many milliseconds it took, and whether it was cut. Raises only `Cancelled` and `WaitFor`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await _run(tool, call, context)
    duration_ms = (loop.time() - began) * 1000
    result, truncated = _bounded(tool, result, max_result_bytes)
    return result, duration_ms, truncated


async def _run(tool: Tool, call: ToolCall, context: ToolContext) -> ToolResult:
    context.token.raise_if_cancelled()
    try:
        arguments = decode_arguments(tool, call.arguments)
    except ToolError as error:
        return ToolResult(ok=False, error=error.message)
    limit = asyncio.timeout(tool.timeout_s)
    try:
        async with limit:
            return await context.token.guard(tool.run(arguments, context))
    except (Cancelled, WaitFor):
        raise
    except ToolError as error:
        return ToolResult(ok=False, error=error.message)
    except Exception as error:
        if isinstance(error, TimeoutError) and limit.expired():
            return ToolResult(ok=False, error=f"{tool.name} did not finish within {tool.timeout_s:g} s.")
        log.exception("tool_failed", error, tool=tool.name)
        return ToolResult(ok=False, error=f"{tool.name} failed unexpectedly ({type(error).__name__}).")


def decode_arguments(tool: Tool, text: str) -> Any:
    """The call's arguments as the tool's type; a `ToolError` names the field that is wrong."""
    if len(text) > MAX_ARGUMENTS_BYTES:
        raise ToolError(f"The arguments of {tool.name} are longer than {MAX_ARGUMENTS_BYTES} characters.")
    try:
        return msgspec.json.decode(text or "{}", type=tool.arguments, strict=False)
    except msgspec.ValidationError as error:
        raise ToolError(f"The arguments of {tool.name} are wrong: {error}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ToolError(f"The arguments of {tool.name} are not a JSON object: {error}") from None
    except RecursionError:
        raise ToolError(f"The arguments of {tool.name} are nested too deeply.") from None


def _bounded(tool: Tool, result: ToolResult, max_bytes: int) -> tuple[ToolResult, bool]:
    try:
        data, data_cut = cut_data(result.data, max_bytes)
    except NotJson as error:
        log.error("tool_result_not_json", tool=tool.name, part=str(error))
        return ToolResult(ok=False, error=f"{tool.name} gave a result that is not JSON ({error})."), False
    error_cut = False
    text = result.error
    if text is not None:
        text, error_cut = cut_text(text, max_bytes)
    return ToolResult(ok=result.ok, data=data, error=text), data_cut or error_cut
