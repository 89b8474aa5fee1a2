"""Arithmetic: a tokenizer and precedence climbing that computes as it reads. Whole numbers stay exact.

    binary :=  unary (operator binary)*     by precedence: + -   * / // %   (unary + -)   **  (right to left)
    atom   :=  number | constant | function "(" binary ("," binary)* ")" | "(" binary ")"

Everything is bounded: the text, the nesting, and the bits of each number before it is computed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from actors.errors import ToolError

MAX_CHARS = 1000
MAX_DEPTH = 50
MAX_BITS = 10_000
_MAX_DIGITS = 400

Number = int | float

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<operator>\*\*|//|[-+*/%(),]))",
    re.ASCII,
)
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 4}
_UNARY = 3
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}


class Token(NamedTuple):
    """A piece of the text and where it begins."""

    kind: str
    text: str
    at: int


def evaluate(text: str) -> Number:
    """The value of an expression, or a `ToolError` that says what is wrong and where."""
    if len(text) > MAX_CHARS:
        raise ToolError(f"The expression is longer than {MAX_CHARS} characters.")
    reader = _Reader(_tokens(text))
    try:
        value = reader.binary(0, 0)
        reader.expect_end()
        return value
    except ZeroDivisionError:
        raise ToolError("Division by zero.") from None
    except OverflowError:
        raise ToolError("A number is too large.") from None


def _tokens(text: str) -> list[Token]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            rest = text[at:].lstrip()
            hint = " (a power is **)" if rest.startswith("^") else ""
            raise ToolError(f"Unexpected {rest[0]!r} at position {len(text) - len(rest) + 1}{hint}.")
        kind = match.lastgroup or ""
        tokens.append(Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return [*tokens, Token("end", "", end + 1)]


class _Reader:
    """Reads tokens and computes."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def binary(self, least: int, depth: int) -> Number:
        """A chain of operators that bind at least as strongly as `least`."""
        if depth > MAX_DEPTH:
            raise ToolError(f"The expression is nested more than {MAX_DEPTH} levels deep.")
        left = self._unary(depth)
        while (binds := _PRECEDENCE.get(self._peek().text, -1)) >= max(least, 1):
            operator = self._take()
            # A power reads to its right: 2 ** 3 ** 2 is 2 ** 9, and 2 ** -1 is a half.
            right = self.binary(binds if operator.text == "**" else binds + 1, depth + 1)
            left = _checked(_OPERATORS[operator.text](left, right), operator)
        return left

    def expect_end(self) -> None:
        token = self._peek()
        if token.kind != "end":
            raise ToolError(f"Unexpected {token.text!r} at position {token.at}.")

    def _unary(self, depth: int) -> Number:
        token = self._peek()
        if token.text in ("+", "-"):
            self._take()
            value = self.binary(_UNARY, depth + 1)
            return -value if token.text == "-" else value
        return self._atom(depth)

    def _atom(self, depth: int) -> Number:
        token = self._take()
        if token.kind == "number":
            return _number(token)
        if token.kind == "name":
            return self._call(token, depth) if self._peek().text == "(" else _constant(token)
        if token.text == "(":
            value = self.binary(0, depth + 1)
            self._expect(")")
            return value
        if token.kind == "end":
            raise ToolError("The expression ends too early.")
        raise ToolError(f"Expected a number at position {token.at}, got {token.text!r}.")

    def _call(self, name: Token, depth: int) -> Number:
        function = _FUNCTIONS.get(name.text.lower())
        if function is None:
            raise ToolError(f"There is no function {name.text!r}. Known: {', '.join(sorted(_FUNCTIONS))}.")
        compute, least, most = function
        self._expect("(")
        arguments = [self.binary(0, depth + 1)]
        while self._peek().text == ",":
            self._take()
            arguments.append(self.binary(0, depth + 1))
        self._expect(")")
        if not least <= len(arguments) <= most:
            raise ToolError(f"{name.text} does not take {len(arguments)} arguments.")
        try:
            return _checked(compute(arguments), name)
        except ValueError:
            raise ToolError(f"{name.text} is not defined for that value.") from None

    def _expect(self, text: str) -> None:
        token = self._take()
        if token.text != text:
            found = repr(token.text) if token.text else "the end"
            raise ToolError(f"Expected {text!r} at position {token.at}, got {found}.")

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token


def _number(token: Token) -> Number:
    value: Number = int(token.text) if token.text.isdigit() else float(token.text)
    return _checked(value, token)


def _constant(token: Token) -> Number:
    value = _CONSTANTS.get(token.text.lower())
    if value is None:
        raise ToolError(f"There is no constant {token.text!r}. Known: {', '.join(_CONSTANTS)}.")
    return value


def _checked(value: Number, where: Token) -> Number:
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise ToolError(f"The number at position {where.at} has more than {MAX_BITS} bits.")
    elif not math.isfinite(value):
        raise ToolError(f"The number at position {where.at} is too large.")
    return value


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        if abs(base) > 1 and exponent > 0 and base.bit_length() * exponent > 2 * MAX_BITS:
            raise ToolError(f"The power has more than {MAX_BITS} bits.")
        if exponent < 0:
            return float(base) ** exponent
    value = base**exponent
    if isinstance(value, complex):
        raise ToolError("A fractional power of a negative number is not a real number.")
    return value


def _log(given: Sequence[Number]) -> Number:
    return math.log(*given)


def _round(given: Sequence[Number]) -> Number:
    if len(given) == 1:
        return round(given[0])
    digits = given[1]
    if not isinstance(digits, int) or abs(digits) > _MAX_DIGITS:
        raise ToolError(f"round takes a whole number of digits, at most {_MAX_DIGITS}.")
    return round(given[0], digits)


def _one(function: Callable[[float], Number]) -> tuple[Callable[[Sequence[Number]], Number], int, int]:
    return (lambda given: function(given[0])), 1, 1


_OPERATORS: dict[str, Callable[[Number, Number], Number]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": _power,
}
_FUNCTIONS: dict[str, tuple[Callable[[Sequence[Number]], Number], int, int]] = {
    "sqrt": _one(math.sqrt),
    "sin": _one(math.sin),
    "cos": _one(math.cos),
    "tan": _one(math.tan),
    "ln": _one(math.log),
    "exp": _one(math.exp),
    "floor": _one(math.floor),
    "ceil": _one(math.ceil),
    "abs": ((lambda given: abs(given[0])), 1, 1),
    "log": (_log, 1, 2),
    "round": (_round, 1, 2),
    "min": (min, 1, 100),
    "max": (max, 1, 100),
}
