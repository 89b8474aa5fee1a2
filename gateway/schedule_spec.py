"""When a schedule is due, as a client says it: checked, with what was expected and what came."""

from __future__ import annotations

import difflib
import zoneinfo
from datetime import datetime
from functools import cache

from actors.clock import isoformat
from actors.errors import InvalidRequest
from actors.recurrence import LAST_YEAR, MAX_EVERY_S, MIN_EVERY_S, SECOND, Recurrence, find_zone, is_cron, next_due

_SHOWN = 80


def recurrence_from(
    *, at: datetime | None, every: float | None, cron: str | None, zone: str | None, now_us: int
) -> Recurrence:
    """The recurrence that exactly one of at, every and cron describes; it is due at least once after now."""
    given = {name: value for name, value in (("at", at), ("every", every), ("cron", cron)) if value is not None}
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        raise InvalidRequest(f"cron: expected exactly one of at, every, cron, got {got}", field="cron")
    if zone is not None:
        check_zone(zone)
    if at is not None:
        recurrence = _at(at, zone)
    elif every is not None:
        recurrence = _every(every, zone, now_us)
    else:
        recurrence = _cron(str(cron), zone)
    if next_due(recurrence, now_us) is None:
        field, what = recurrence.kind, recurrence.expression[:_SHOWN]
        if at is not None:
            raise InvalidRequest(f"at: expected a time after now ({isoformat(now_us)}), got {what}", field=field)
        raise InvalidRequest(f"cron: expected an expression with a date to come, {what!r} never fires", field=field)
    return recurrence


def check_zone(zone: str) -> None:
    """`InvalidRequest` for anything but an IANA zone, with the nearest one."""
    if find_zone(zone) is not None:
        return
    known = _zones()
    close = known.get(zone.lower()) or next(
        (known[name] for name in difflib.get_close_matches(zone.lower(), known, 1, 0.5)), None
    )
    raise InvalidRequest(
        f"zone: expected an IANA time zone such as Europe/Berlin, got {zone[:_SHOWN]!r}",
        field="zone",
        hint=f"did you mean {close!r}?" if close else None,
    )


@cache
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in sorted(zoneinfo.available_timezones())}


def _at(at: datetime, zone: str | None) -> Recurrence:
    if not 1970 < at.year <= LAST_YEAR:
        raise InvalidRequest(f"at: expected a year from 1971 to {LAST_YEAR}, got {at.year}", field="at")
    if at.tzinfo is None and zone is None:
        what = "expected a time with its offset such as 2027-01-02T03:04:05Z, or zone beside it"
        raise InvalidRequest(f"at: {what}, got {at.isoformat()}", field="at")
    return Recurrence(kind="at", expression=at.isoformat(), zone=zone or "UTC")


def _every(every: float, zone: str | None, now_us: int) -> Recurrence:
    if not MIN_EVERY_S <= every <= MAX_EVERY_S:
        what = f"expected seconds from {MIN_EVERY_S:g} to {MAX_EVERY_S:.0f}"
        raise InvalidRequest(f"every: {what}, got {every:g}", field="every")
    seconds = round(every * SECOND) / SECOND
    return Recurrence(kind="every", expression=repr(seconds), zone=zone or "UTC", anchor_us=now_us)


def _cron(cron: str, zone: str | None) -> Recurrence:
    text = " ".join(cron.split())
    if not is_cron(text):
        what = "expected five fields (minute hour day month weekday) or an alias such as @daily"
        hint = "for example '30 9 * * mon-fri'; seconds and years have no field"
        raise InvalidRequest(f"cron: {what}, got {text[:_SHOWN]!r}", field="cron", hint=hint)
    return Recurrence(kind="cron", expression=text, zone=zone or "UTC")
