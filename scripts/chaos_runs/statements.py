"""Statements of the service as they are run here: each end that is asked for is counted; the control has no fence.

Counting happens in the very statement that is refused, so it counts those too that arrive when nobody waits for them.
The control takes out what makes a completion refusable: the session's epoch and owner, the attempt, "it still runs".
"""

from __future__ import annotations

from collections.abc import Mapping

AUDIT_TABLE = """
CREATE TABLE chaos_ends (
    turn_id TEXT NOT NULL, kind TEXT NOT NULL, epoch BIGINT NOT NULL, attempt BIGINT NOT NULL,
    accepted BOOLEAN NOT NULL, epoch_then BIGINT NOT NULL
)
"""
_INTO = "INSERT INTO chaos_ends (turn_id, kind, epoch, attempt, accepted, epoch_then) SELECT"
_ONE = "$3, '{kind}', $2, $4, EXISTS (SELECT 1 FROM task), s.epoch FROM sessions s WHERE s.session_id = $1"
_MANY = (
    "g.turn_id, 'end', g.epoch, g.attempt, EXISTS (SELECT 1 FROM task t WHERE t.turn_id = g.turn_id), s.epoch "
    "FROM given g JOIN sessions s ON s.session_id = g.session_id"
)
_AUDITS = {
    "commit_round": _ONE.format(kind="round"),
    "finish_turn": _ONE.format(kind="end"),
    "finish_and_leave": _MANY,
}
_LAST_SELECT = "\n)\nSELECT "

_FENCED_ONE = "AND epoch = $2 AND owner_id IS NOT NULL FOR UPDATE"
_UNFENCED_ONE = "AND $2::bigint IS NOT NULL FOR UPDATE"
_UNFENCED: dict[str, list[tuple[str, str]]] = {
    "append_events": [("AND s.epoch = f.epoch AND s.owner_id || '' IS NOT NULL\n    ORDER BY", "ORDER BY")],
    "commit_round": [
        (_FENCED_ONE, _UNFENCED_ONE),
        ("AND attempt = $4 AND status = 'running'", "AND $4::bigint IS NOT NULL"),
    ],
    "finish_turn": [
        (_FENCED_ONE, _UNFENCED_ONE),
        ("AND attempt = $4 AND status IN ('queued', 'running')", "AND $4::bigint IS NOT NULL"),
    ],
    "finish_and_leave": [
        ("AND s.epoch = g.epoch AND s.owner_id || '' IS NOT NULL\n    ORDER BY", "ORDER BY"),
        ("AND t.attempt = f.attempt", ""),
        ("AND t.status || '' IN ('queued', 'running')", ""),
    ],
}


def changed(queries: Mapping[str, str], *, fenced: bool) -> dict[str, str]:
    """The queries with the audit, and without the fence unless `fenced`; a text that is not found is an error."""
    found = dict(queries)
    for name, columns in _AUDITS.items():
        found[name] = replaced(name, found[name], _LAST_SELECT, f"\n), audit AS (\n    {_INTO} {columns}\n)\nSELECT ")
    for name, changes in _UNFENCED.items() if not fenced else ():
        for old, new in changes:
            found[name] = replaced(name, found[name], old, new)
    return found


def replaced(name: str, sql: str, old: str, new: str) -> str:
    """`old` occurs once: the statement is still the one that this was written for."""
    if sql.count(old) != 1:
        raise ValueError(f"{name}: expected {old!r} once, found it {sql.count(old)} times")
    return sql.replace(old, new)
