"""When a schedule is due: pure, no clock inside. Instants are microseconds since the epoch (UTC).

at      one instant
every   anchor + k * seconds, in real time: zones and their changes do not matter
cron    what the clock on a wall in `zone` shows, with two rules for the days on which it is set

          the clock goes forward (02:00 -> 03:00)           the clock goes back (03:00 -> 02:00)
fixed     a time that was left out is due once, when        a time that comes twice is due once,
hours     the gap ends (03:00); several of them: once       at the first of the two
any hour  follows real time: due whenever the clock         follows real time: due in both passes,
(* or */n) shows a matching time                            so `*/30 * * * *` stays every half hour
"""

from __future__ import annotations

import re
import zoneinfo
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import msgspec
from croniter import CroniterBadDateError, CroniterError, croniter

from storage.schedule_records import ScheduleKind, ScheduleRecord

SECOND = 1_000_000
MIN_EVERY_S, MAX_EVERY_S = 1.0, 31_622_400.0
LAST_YEAR = 9000
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_YEARS_AHEAD = 9
"""A cron expression without a match in so many years never matches: 29 February may be eight years away."""
_SCAN_US = 6 * 3600 * SECOND
"""No zone sets its clock twice within this."""
NEAR_US = 48 * 3600 * SECOND
"""No clock is set back by so much."""
_FIRST_SPAN_US = 60 * SECOND
_ALIASES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})
_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat"
_FIELD = re.compile(rf"(?:[0-9]+|{_NAMES}|l[0-9]?|[*?,/#-])+")
_NOT_ZONES = re.compile(r"posix(rules)?(/|$)|right/|localtime$|Factory$")


class Recurrence(msgspec.Struct, frozen=True, kw_only=True):
    """When something is due; the fields are those of a `ScheduleRecord`."""

    kind: ScheduleKind
    expression: str
    zone: str = "UTC"
    anchor_us: int = 0


def recurrence_of(schedule: ScheduleRecord) -> Recurrence:
    """The part of a schedule that says when."""
    return Recurrence(
        kind=schedule.kind, expression=schedule.expression, zone=schedule.zone, anchor_us=schedule.anchor_us
    )


def is_cron(text: str) -> bool:
    """Whether this is a cron expression: five fields or an alias, no seconds, years or random parts."""
    lowered = text.lower()
    fields = lowered.split()
    if lowered not in _ALIASES and not (len(fields) == 5 and all(map(_FIELD.fullmatch, fields))):
        return False
    try:
        croniter.expand(lowered)
    except (CroniterError, ValueError):
        return False
    return True


def find_zone(name: str) -> ZoneInfo | None:
    """The IANA zone with this name."""
    if _NOT_ZONES.match(name):
        return None
    try:
        return ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def due_times(recurrence: Recurrence, after_us: int) -> Iterator[int]:
    """Every due time after an instant, in order; they may end."""
    if recurrence.kind == "at":
        at_us = instant(recurrence.expression, recurrence.zone)
        return iter([at_us] if at_us > after_us else [])
    if recurrence.kind == "every":
        return _steps(recurrence.anchor_us, round(float(recurrence.expression) * SECOND), after_us)
    expression, zone = recurrence.expression.lower(), ZoneInfo(recurrence.zone)
    return (_in_real_time if _any_hour(expression) else _by_the_clock)(expression, zone, after_us)


def next_due(recurrence: Recurrence, after_us: int) -> int | None:
    """The first due time after an instant; None if there is none."""
    return next(due_times(recurrence, after_us), None)


def newest_due(recurrence: Recurrence, first_us: int, until_us: int, most: int) -> list[int]:
    """Of the due times from `first_us` (which is one) to `until_us`, the newest `most`, in order."""
    span_us = _FIRST_SPAN_US
    while True:
        after_us = max(first_us, until_us - span_us)
        found = deque(takewhile(lambda due_us: due_us <= until_us, due_times(recurrence, after_us)), maxlen=most)
        if after_us == first_us:
            return [first_us, *found][-most:]
        if len(found) == most:
            return list(found)
        span_us *= 2


def instant(text: str, zone: str) -> int:
    """An ISO time as an instant; one without an offset is what the clock in `zone` shows."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        return _us(moment.astimezone(UTC).replace(tzinfo=None))
    return _resolve(moment.replace(microsecond=0), ZoneInfo(zone)) + moment.microsecond


def _steps(anchor_us: int, step_us: int, after_us: int) -> Iterator[int]:
    number = max(1, (after_us - anchor_us) // step_us + 1)
    while True:
        yield anchor_us + number * step_us
        number += 1


# -- cron ------------------------------------------------------------------------------------------------------------


def _any_hour(expression: str) -> bool:
    return expression == "@hourly" or (not expression.startswith("@") and expression.split()[1].startswith("*"))


def _matches(expression: str, after: datetime) -> Iterator[datetime]:
    """Wall times that match, after one of them."""
    found = croniter(expression, after, ret_type=datetime, max_years_between_matches=_YEARS_AHEAD)
    while True:
        try:
            match: datetime = found.get_next(datetime)
        except (CroniterBadDateError, OverflowError):
            return
        if match.year > LAST_YEAR:
            return
        yield match


def _by_the_clock(expression: str, zone: ZoneInfo, after_us: int) -> Iterator[int]:
    # What the clock shows at `after_us` was first due then or earlier, so only later wall times matter.
    last_us = after_us
    for wall in _matches(expression, _wall(after_us, zone)):
        due_us = _resolve(wall, zone)
        if due_us > last_us:
            yield due_us
            last_us = due_us


def _in_real_time(expression: str, zone: ZoneInfo, after_us: int) -> Iterator[int]:
    since_us, offset_us = after_us, _offset(after_us, zone)
    matches = _matches(expression, _wall(after_us, zone))
    while (wall := next(matches, None)) is not None:
        due_us = _us(wall) - offset_us
        far = due_us - since_us > 2 * NEAR_US
        from_us = _change_within(since_us, since_us + NEAR_US if far else due_us, zone)
        if from_us is None and not far:
            yield due_us
            since_us = due_us
            continue
        # The clock is set before that: look on from what it shows then. Or it is far away: nothing on the way can
        # match, for a clock that is set back shows again only what it showed a short time ago.
        since_us = due_us - NEAR_US if from_us is None else from_us
        offset_us = _offset(since_us, zone)
        matches = _matches(expression, _wall(since_us, zone) - timedelta(seconds=1))


def _resolve(wall: datetime, zone: ZoneInfo) -> int:
    """When the clock shows this first, or would have if the time were not left out: when that gap ends."""
    first_us = _us(wall) - _us_of(wall.replace(tzinfo=zone, fold=0).utcoffset())
    if _wall(first_us, zone) == wall:
        return first_us
    # In a gap the offset of fold 0 is the one before it, that of fold 1 the one after it.
    before_us = _us(wall) - _us_of(wall.replace(tzinfo=zone, fold=1).utcoffset())
    return _change_between(before_us, first_us, zone)


def _change_within(low_us: int, high_us: int, zone: ZoneInfo) -> int | None:
    """The first instant in (low, high] at which the clock is set."""
    while low_us < high_us:
        step_us = min(low_us + _SCAN_US, high_us)
        if _offset(step_us, zone) != _offset(low_us, zone):
            return _change_between(low_us, step_us, zone)
        low_us = step_us
    return None


def _change_between(low_us: int, high_us: int, zone: ZoneInfo) -> int:
    """The second at which the offset becomes another than it is at `low_us`; at `high_us` it is."""
    low, high, before_us = low_us // SECOND, high_us // SECOND, _offset(low_us, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle * SECOND, zone) == before_us:
            low = middle
        else:
            high = middle
    return high * SECOND


def _wall(us: int, zone: ZoneInfo) -> datetime:
    """What the clock shows, to the second."""
    return datetime.fromtimestamp(us // SECOND, zone).replace(tzinfo=None, fold=0)


def _offset(us: int, zone: ZoneInfo) -> int:
    return _us_of(datetime.fromtimestamp(us // SECOND, zone).utcoffset())


def _us(naive: datetime) -> int:
    return (naive - _EPOCH) // _MICROSECOND


def _us_of(offset: timedelta | None) -> int:
    return (offset or timedelta()) // _MICROSECOND
