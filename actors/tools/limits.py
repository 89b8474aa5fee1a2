"""Cutting a tool's result to a size early: at most the budget is walked, encoded and kept."""

from __future__ import annotations

from typing import Any

import msgspec

_MAX_DEPTH = 32
_KEPT_INT_BITS = 63


class NotJson(Exception):
    """The value has a part that JSON has not."""


def cut_text(text: str, max_bytes: int) -> tuple[str, bool]:
    """At most `max_bytes` of UTF-8, cut at a character, with a note of what is missing."""
    if len(text) * 4 <= max_bytes:
        return text, False
    head = text[: max_bytes + 1].encode("utf-8", "replace")
    if len(text) <= max_bytes and len(head) <= max_bytes:
        return text, False
    note = f"… [truncated: the text has {len(text)} characters]"
    kept = head[: max(max_bytes - len(note.encode()), 0)].decode("utf-8", "ignore")
    return kept + note, True


def cut_data(data: Any, max_bytes: int) -> tuple[Any, bool]:
    """The value with its JSON bounded by about `max_bytes` (long strings and lists are cut); raises `NotJson`."""
    cutter = _Cutter(max_bytes)
    cut = cutter.cut(data, 0)
    return cut, cutter.truncated


class _Cutter:
    """Walks a value with a budget of bytes that everything draws from."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self.truncated = False

    def cut(self, value: Any, depth: int) -> Any:
        match value:
            case None | bool():
                self._left -= 5
                return value
            case int():
                return self._int(value)
            case float():
                self._left -= 24
                return value
            case str():
                return self._text(value)
            case dict() if depth < _MAX_DEPTH:
                return self._dict(value, depth)
            case list() | tuple() if depth < _MAX_DEPTH:
                return self._list(value, depth)
        raise NotJson(type(value).__name__)

    def _int(self, value: int) -> int | str:
        self._left -= 20
        if value.bit_length() <= _KEPT_INT_BITS:
            return value
        text: str = self._text(str(value) if value.bit_length() < 14_000 else hex(value))
        return text

    def _text(self, value: str) -> str:
        budget = max(self._left - 2, 0)
        while True:
            kept, cut = cut_text(value, budget)
            size = len(msgspec.json.encode(kept.encode("utf-8", "replace").decode()))
            # Escapes (\n, \u0001) make JSON longer than its text: cut again by what is too much.
            if size <= self._left or budget == 0:
                break
            budget = budget * self._left // (size + 1) if self._left > 0 else 0
        self._left -= size
        self.truncated = self.truncated or cut
        return kept.encode("utf-8", "replace").decode()

    def _list(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        self._left -= 2
        kept: list[Any] = []
        for item in value:
            if self._left <= 0:
                self.truncated = True
                kept.append(f"… [truncated: {len(value) - len(kept)} more items]")
                break
            self._left -= 1
            kept.append(self.cut(item, depth + 1))
        return kept

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        self._left -= 2
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if self._left <= 0:
                self.truncated = True
                kept["…"] = f"[truncated: {len(value) - len(kept)} more keys]"
                break
            if not isinstance(key, str):
                raise NotJson(f"a key of type {type(key).__name__}")
            self._left -= 2
            name = self._text(key)
            kept[name] = self.cut(item, depth + 1)
        return kept
