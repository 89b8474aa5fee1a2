"""Oracle O3: what one reader got of one session, checked event by event.

Every number after the cursor is covered once, by an event or a segment's range; numbers are left out only before a
`gap` or a `rewind`; nothing of a turn comes after its `turn_terminal`; and the text that counts is the transcript's.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from actors.events import VOLATILE_KINDS

DELTA = "llm_output_delta"


class Reading:
    """The events of one reader, in the order they came."""

    def __init__(self, cursor: int, *, turn_id: str | None = None) -> None:
        self.cursor = cursor
        self.begin = cursor
        self.events: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.rewinds = 0
        self.ended: list[str] = []
        self._only = turn_id

    def take(self, event: dict[str, Any]) -> None:
        """The next event; fails when it breaks the promise."""
        kind, seq, data = event["event"], event["id"], event["data"]
        if kind == "heartbeat":
            assert seq == self.cursor or self._only, f"heartbeat at {seq}, cursor {self.cursor}"
            return
        first = data.get("first_id", seq)
        if kind == "gap":
            self._gap(event)
        elif kind != "rewind" and self._only is None:
            assert first == self.cursor + 1, f"silent gap, or again: cursor {self.cursor}, got {first}..{seq} {kind}"
        assert seq > self.cursor or self._impossible(event), f"order: cursor {self.cursor}, got {seq} {kind}"
        turn = data["turn_id"]
        assert not (turn and turn in self.ended), f"{kind} {seq} after the end of {turn}"
        assert self._only is None or turn in ("", self._only), f"{kind} {seq} of another turn"
        if kind == "turn_terminal":
            self.ended.append(turn)
        if kind == "rewind":
            self._rewind(turn, data["data"]["to_event_id"])
        self.cursor = seq
        self.events.append(event)
        self.kept.append(event)

    def _gap(self, event: dict[str, Any]) -> None:
        data = event["data"]["data"]
        exact = data["from"] == self.cursor + 1 or (self._only is not None and data["from"] > self.cursor)
        assert exact or self._impossible(event), f"gap from {data} at cursor {self.cursor}"
        assert event["id"] == data["oldest"] - 1, f"gap {event['id']}: {data}"
        self.gaps.append(data)

    def _impossible(self, event: dict[str, Any]) -> bool:
        return event["event"] == "gap" and not self.events and event["data"]["data"]["from"] == self.cursor

    def _rewind(self, turn: str, to: int) -> None:
        self.rewinds += 1
        self.kept = [
            e for e in self.kept if not (e["event"] in VOLATILE_KINDS and e["data"]["turn_id"] == turn and e["id"] > to)
        ]

    # -- what it says --------------------------------------------------------------------------------------------

    def kinds(self, turn_id: str | None = None) -> list[str]:
        return [e["event"] for e in self.events if turn_id in (None, e["data"]["turn_id"])]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == kind]

    def text(self, turn_id: str | None = None) -> str:
        """The model's text that counts."""
        return "".join(
            e["data"]["data"].get("delta", "")
            for e in self.kept
            if e["event"] == DELTA and turn_id in (None, e["data"]["turn_id"])
        )

    def status(self, turn_id: str) -> str:
        """How the turn ended; exactly once."""
        ends = [e["data"]["data"]["status"] for e in self.of("turn_terminal") if e["data"]["turn_id"] == turn_id]
        assert len(ends) == 1, f"{turn_id} ended {ends}"
        return str(ends[0])

    def equals_transcript(self, messages: list[dict[str, Any]]) -> None:
        """Without gaps, each turn's text that counts is what its assistant messages say."""
        assert not self.gaps, self.gaps
        for turn_id in self.ended:
            stored = "".join(
                m["content"] or "" for m in messages if m["turn_id"] == turn_id and m["role"] == "assistant"
            )
            assert self.text(turn_id) == stored, f"{turn_id}: {self.text(turn_id)!r} != {stored!r}"

    def agrees_with(self, whole: Reading) -> None:
        """What this reader got is, number by number, what one who never left saw after this one's cursor.

        Either may have got some numbers one by one and some as a segment, which is what a reader gets that catches up.
        """
        theirs = deque(e for e in whole.events if e["id"] > self.begin)
        assert not theirs or self.cursor == whole.cursor, f"ends at {self.cursor}, not {whole.cursor}"
        mine = deque(self.events)
        while mine:
            if mine[0]["event"] == "gap":
                lost = mine.popleft()["id"]
                while theirs and theirs[0]["id"] <= lost:
                    theirs.popleft()
                continue
            assert theirs, f"nobody saw {mine[0]}"
            ours, others = [mine.popleft()], [theirs.popleft()]
            while ours[-1]["id"] != others[-1]["id"]:
                behind, rest = (ours, mine) if ours[-1]["id"] < others[-1]["id"] else (others, theirs)
                assert rest, f"nobody saw {ours[-1]} up to {others[-1]}"
                behind.append(rest.popleft())
            _same(ours, others, cut=_first(others[0]) <= self.begin)
        assert not theirs, f"missing: {theirs[0]}"


def _first(event: dict[str, Any]) -> int:
    return int(event["data"].get("first_id", event["id"]))


def _same(ours: list[dict[str, Any]], others: list[dict[str, Any]], *, cut: bool) -> None:
    """The same range of numbers; `cut` says that the other reader's begins before ours."""
    assert cut or _first(ours[0]) == _first(others[0]), f"{ours[0]} does not begin where {others[0]} does"
    both = [*ours, *others]
    kind = ours[0]["event"]
    assert {e["event"] for e in both} == {kind}, f"{ours} is not {others}"
    assert len({e["data"]["turn_id"] for e in both}) == 1
    if kind not in (DELTA, "tool_output_delta"):
        assert [e["data"]["data"] for e in ours] == [e["data"]["data"] for e in others]
        return
    for field in ("delta", "reasoning_delta"):
        our, other = ("".join(e["data"]["data"].get(field, "") for e in events) for events in (ours, others))
        assert other.endswith(our) if cut else other == our, f"{ours} is not {others}"
