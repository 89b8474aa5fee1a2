"""Records and events as the API shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.clock import Clock, isoformat
from actors.events import from_record, gap
from actors.replies import Event, Submitted
from storage.records import EventRecord, MessageRecord, SessionId, SessionRecord
from storage.segments import cut


def session_view(session: SessionRecord) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "user_id": session.user_id,
        "title": session.title,
        "agent_id": session.agent_id,
        "archived": session.archived,
        "created_at": isoformat(session.created_us),
        "updated_at": isoformat(session.updated_us),
        "message_count": session.message_count,
    }


def message_view(message: MessageRecord) -> dict[str, Any]:
    return {
        **msgspec.json.decode(message.body),
        "position": message.position,
        "turn_id": message.turn_id,
        "created_at": isoformat(message.created_us),
    }


def queued_view(submitted: Submitted) -> dict[str, Any]:
    return {
        "queued": True,
        "queue_id": submitted.turn_id,
        "turn_id": submitted.turn_id,
        "session_id": submitted.session_id,
        "position": submitted.position,
        "reason": submitted.reason,
    }


def event_view(event: Event) -> dict[str, Any]:
    return {"event": event.kind, "id": event.seq, "data": msgspec.Raw(event.body)}


def with_gaps(records: list[EventRecord], after: int, last: int, now_us: int) -> list[Event]:
    """A page of stored events, with a `gap` wherever numbers are missing."""
    events: list[Event] = []
    for record in records:
        event = from_record(cut(record, after), 0)
        if event.first_seq > after + 1 and event.kind != "rewind":
            missing = gap(record.session_id, 0, first=after + 1, oldest=event.first_seq, latest=last, now_us=now_us)
            events.append(missing)
        events.append(event)
        after = event.seq
    return events


def impossible(session_id: SessionId, epoch: int, after: int, latest: int, clock: Clock) -> Event:
    """The first event for a cursor that no reader can have: the stream goes on after `latest`."""
    made = gap(session_id, epoch, first=after, oldest=latest + 1, latest=latest, now_us=clock.now_us())
    return msgspec.structs.replace(made, first_seq=latest, seq=latest)
