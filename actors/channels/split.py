"""Long texts in parts that a provider takes: cut between paragraphs, lines or words; code stays in its fence.

A part that ends inside ``` closes the fence, and the next one opens it again with the same language.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable

Size = Callable[[str], int]

MAX_PARTS = 25
CUT = "\n[...]"
_FENCE = re.compile(r"^ {0,3}(```+)([^`\n]*)$", re.MULTILINE)
_CLOSE = "\n```"
_LONGEST_FENCE = 40


def utf16_units(text: str) -> int:
    """How Telegram counts."""
    return len(text) + sum(char > "\uffff" for char in text)


def split(text: str, limit: int, size: Size = len) -> list[str]:
    """The parts, each of at most `limit`; beyond `MAX_PARTS` the text is cut off, and says so."""
    parts: list[str] = []
    rest, opening = text.strip(), ""
    while rest:
        head = f"{opening}\n" if opening else ""
        if size(head + rest) <= limit:
            parts.append(head + rest)
            break
        if len(parts) == MAX_PARTS - 1:
            parts.append(_ended(head + _first(rest, limit - size(head + _CLOSE + CUT), size)) + CUT)
            break
        piece = _first(rest, limit - size(head + _CLOSE), size)
        rest = _rest(rest, piece)
        part = _ended(head + piece)
        opening = _open_fence(head + piece)
        if opening and rest.lstrip(" ").startswith("```") and _FENCE.match(rest):
            rest, opening = rest.partition("\n")[2], ""  # it ends here anyway
        parts.append(part)
    return parts


def _ended(part: str) -> str:
    return part.rstrip() + (_CLOSE if _open_fence(part) else "")


def _first(text: str, room: int, size: Size) -> str:
    """The longest good beginning that has room: to the last empty line, else line, else word, else as it comes."""
    end = max(1, bisect_right(range(1, min(len(text), room) + 1), room, key=lambda upto: size(text[:upto])))
    if text[end : end + 1] == "\n" or (text[end : end + 1] == " " and text[:end].rpartition("\n")[2].strip()):
        return text[:end]
    for separator, least in (("\n\n", end // 2), ("\n", end // 4), (" ", end // 4)):
        at = text.rfind(separator, 0, end)
        if at > least:
            return text[:at]
    return text[:end]


def _rest(text: str, piece: str) -> str:
    """What follows; the white space at the cut is dropped, but not the indentation of the next line."""
    rest = text[len(piece) :]
    stripped = rest.lstrip(" ")
    if stripped.startswith("\n"):
        return stripped.lstrip("\n")
    return rest[1:] if rest.startswith(" ") else rest


def _open_fence(text: str) -> str:
    """The line that opened the fence in which the text ends; empty if it ends in none."""
    opening = ""
    for match in _FENCE.finditer(text):
        if not opening:
            opening = match[0].strip()
        elif not match[2].strip():
            opening = ""
    return opening if len(opening) <= _LONGEST_FENCE else "```" if opening else ""
