"""What a session host tells of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, get_args

from actors.replies import Description
from actors.session_runner import SessionRunner
from actors.turn_runner import RETRIED, SUSPENDED, Services
from storage.records import SessionId, TerminalStatus
from storage.stream_event_writer import StreamEventWriter

_ENDS = (*get_args(TerminalStatus), RETRIED, SUSPENDED)


def describe_host(
    runners: Mapping[SessionId, SessionRunner],
    writer: StreamEventWriter,
    services: Services,
    gauges: Mapping[str, float],
    info: Mapping[str, Any],
) -> Description:
    """Numbers of its sessions and its writer, beside those given."""
    sessions, counts = [runner.session for runner in runners.values()], writer.counts
    return Description(
        gauges={
            "sessions_open": len(sessions),
            "turns_running": sum(session.running is not None for session in sessions),
            "turns_queued": sum(len(session.queue) for session in sessions),
            **{f"turns_{end}": float(services.ended[end]) for end in _ENDS},
            "event_writer_depth": writer.depth,
            "event_writer_age_seconds": writer.age_s(),
            "event_writer_rows": counts.rows,
            "event_writer_events": counts.events,
            "event_writer_dropped": counts.dropped,
            "event_writer_failures": counts.failures,
            **gauges,
        },
        info={"pid": os.getpid(), "statements": dict(services.store.statements()), **info},
    )
