"""The calculator as a tool."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from actors.tools.base import ToolContext, ToolResult
from actors.tools.expression import MAX_CHARS, evaluate

_EXACT = 2**53


class CalculatorArguments(msgspec.Struct, frozen=True):
    """What to compute."""

    expression: Annotated[
        str,
        Meta(
            description=(
                "Numbers, + - * / // % **, parentheses, pi, e, and sqrt sin cos tan log ln exp abs round min max "
                "floor ceil."
            ),
            max_length=MAX_CHARS,
        ),
    ]


class Calculator:
    """Exact for whole numbers."""

    name = "calculator"
    description = "Computes an arithmetic expression exactly, for example (2 + 3) * 4 ** 2."
    parallel_safe = True
    repeat_safe = True
    arguments: type[msgspec.Struct] = CalculatorArguments

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s

    async def run(self, arguments: CalculatorArguments, context: ToolContext) -> ToolResult:
        value = evaluate(arguments.expression)
        exact = not isinstance(value, int) or abs(value) <= _EXACT
        return ToolResult(ok=True, data={"expression": arguments.expression, "result": value if exact else str(value)})
