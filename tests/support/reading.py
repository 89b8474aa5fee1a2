"""Oracle O3: what one reader got of one session, checked event by event.

Every number after the cursor is covered once, by an event or a segment's range; numbers are left out only before a
`gap` or a `rewind`; nothing of a turn comes after its `turn_terminal`; and the text that counts is the transcript's.
"""

from __future__ import annotations

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
        """What this reader got is, number by number, what one who never left saw after this one's cursor."""
        live = [e for e in whole.events if e["id"] > self.begin]
        assert not live or self.cursor == whole.cursor, f"ends at {self.cursor}, not {whole.cursor}"
        for event in self.events:
            first = event["data"].get("first_id", event["id"])
            if event["event"] == "gap":
                live = [e for e in live if e["id"] > event["id"]]
                continue
            covered = [e for e in live if first <= e["id"] <= event["id"]]
            assert live[: len(covered)] == covered, f"not in order at {first}"
            live = live[len(covered) :]
            _same(event, covered)
        assert not live, f"missing: {live[:2]}"


def _same(event: dict[str, Any], covered: list[dict[str, Any]]) -> None:
    """One event, or the events that it stands for."""
    kind, data = event["event"], event["data"]["data"]
    assert covered, f"nobody saw {event}"
    assert {e["event"] for e in covered} == {kind}, f"{event} stands for {covered}"
    assert {e["data"]["turn_id"] for e in covered} == {event["data"]["turn_id"]}
    if kind not in (DELTA, "tool_output_delta"):
        assert [e["data"]["data"] for e in covered] == [data], f"{event} is not {covered}"
        return
    for field in ("delta", "reasoning_delta"):
        assert data.get(field, "") == "".join(e["data"]["data"].get(field, "") for e in covered), f"{event}"
