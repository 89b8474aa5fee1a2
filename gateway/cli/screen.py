"""Events as lines of text: the answer as it comes, everything else in one dim line each."""

from __future__ import annotations

import json
import re
from typing import Any, TextIO

from gateway.cli.turn_client import Accepted, Cut, Item, TurnEvent

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST = 100


class Screen:
    """Shows one turn; `text` is what counts of the round's answer so far, `status` how the turn ended."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._pieces: list[tuple[int, str]] = []
        self._line_open = False
        self._answered = False
        self.status = ""

    @property
    def text(self) -> str:
        return "".join(piece for _, piece in self._pieces)

    def show(self, item: Item) -> None:
        """Print what there is to see of this item."""
        match item:
            case Accepted(queued=True, position=position):
                self.note(f"waiting, position {position}")
            case Accepted():
                pass
            case Cut(reason=reason):
                self.note(f"{reason}; connecting again")
            case TurnEvent():
                self._event(item)
        self._out.flush()

    def note(self, text: str) -> None:
        """A dim line of its own."""
        self._end_line()
        text = _clean(text).replace("\n", " ")
        self._out.write(f"{_DIM}{text}{_PLAIN}\n" if self._colour else f"{text}\n")
        self._out.flush()

    def _event(self, item: TurnEvent) -> None:
        data = item.data
        match item.event:
            case "llm_output_delta":
                self._delta(item.id, data)
            case "llm_output":
                self._complete(str(data.get("content") or ""))
                self._pieces = []
            case "final" if not self._answered:
                self._complete(str(data.get("answer") or ""))
            case "tool_call":
                self.note(f"-> {data.get('tool')} {_short(data.get('args'))}")
            case "tool_result":
                self.note(_tool_result(data))
            case "llm_stream_retry":
                self.note(f"the model failed, try {data.get('attempt')} of {data.get('max_attempts')}")
            case "rewind":
                self._rewind(int(data.get("to_event_id", 0)), str(data.get("reason", "")))
            case "gap":
                self.note(f"[a part of the stream is missing: {data.get('from')} to {int(data.get('oldest', 0)) - 1}]")
            case "error":
                self.note(f"error: {data.get('message')} ({data.get('code')})")
            case "turn_terminal":
                self.status = str(data.get("status", ""))
                self._end_line()
                if self.status != "succeeded":
                    self.note(f"[{self.status}]")

    def _delta(self, number: int, data: dict[str, Any]) -> None:
        text, thought = str(data.get("delta") or ""), str(data.get("reasoning_delta") or "")
        if thought and self._colour:
            self._write(f"{_DIM}{_clean(thought)}{_PLAIN}")
        if text:
            self._pieces.append((number, text))
            self._answered = True
            self._write(_clean(text))

    def _complete(self, content: str) -> None:
        """The whole of what was streamed: print what is missing, or all of it if it is something else."""
        shown = self.text
        if content == shown or not content:
            return
        self._answered = True
        if not content.startswith(shown):
            self.note("[the answer in full:]")
            shown = ""
        self._write(_clean(content[len(shown) :]))

    def _rewind(self, to: int, reason: str) -> None:
        kept = [(number, piece) for number, piece in self._pieces if number <= to]
        lost = len(self.text) - sum(len(piece) for _, piece in kept)
        self._pieces = kept
        self._answered = bool(kept)
        self.note(f"[taken back: the last {lost} characters do not count: {reason}]")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._line_open = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._line_open:
            self._out.write("\n")
            self._line_open = False


def _tool_result(data: dict[str, Any]) -> str:
    duration = (data.get("meta") or {}).get("duration_ms", 0)
    outcome = _short(data.get("data")) if data.get("ok") else f"failed: {_short(data.get('error'))}"
    return f"<- {data.get('tool')} ({duration:.0f} ms) {outcome}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _clean(text: str) -> str:
    """Without control characters: what a model or tool says must not steer the terminal."""
    return _CONTROL.sub("", text)
