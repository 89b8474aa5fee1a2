"""When schedules are due: the days on which clocks are set, and properties against a count of every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import recurrence as recurrence_module
from actors.recurrence import Recurrence, due_times, find_zone, instant, is_cron, newest_due, next_due

SECOND = 1_000_000
MINUTE = 60 * SECOND

# zone, a day before, a day after something happens to its clock (or nothing: Kathmandu, UTC)
WINDOWS = [
    ("Europe/Berlin", "2026-03-28", "2026-03-30"),
    ("Europe/Berlin", "2026-10-24", "2026-10-26"),
    ("America/New_York", "2026-03-07", "2026-03-09"),
    ("America/New_York", "2026-10-31", "2026-11-02"),
    ("Australia/Lord_Howe", "2026-04-04", "2026-04-06"),  # half an hour
    ("Australia/Lord_Howe", "2026-10-03", "2026-10-05"),
    ("Pacific/Apia", "2011-12-28", "2012-01-01"),  # 30 December was left out
    ("America/Sao_Paulo", "2018-11-03", "2018-11-05"),  # midnight was left out
    ("America/Sao_Paulo", "2018-02-17", "2018-02-19"),
    ("America/Caracas", "2016-04-30", "2016-05-02"),  # the standard offset changed by half an hour
    ("Asia/Kathmandu", "2026-03-28", "2026-03-30"),
    ("UTC", "2026-03-28", "2026-03-30"),
]


def cron(expression: str, zone: str) -> Recurrence:
    return Recurrence(kind="cron", expression=expression, zone=zone)


def at(text: str) -> int:
    return instant(text, "UTC")


def local(recurrence: Recurrence, after: str, count: int) -> list[str]:
    """The next due times as the clock there shows them."""
    zone = ZoneInfo(recurrence.zone)
    found = islice(due_times(recurrence, instant(after, recurrence.zone)), count)
    return [datetime.fromtimestamp(us // SECOND, zone).isoformat(timespec="minutes") for us in found]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # A time that is left out: once, when the gap ends.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"],
        ),
        (
            "0,20,40 2,3 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00",
            ["2026-03-29T03:00+02:00", "2026-03-29T03:20+02:00", "2026-03-29T03:40+02:00", "2026-03-30T02:00+02:00"],
        ),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00",
            ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"],
        ),
        ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00", ["2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"]),
        (
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T00:00",
            ["2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"],
        ),
        ("0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00", ["2011-12-31T00:00+14:00", "2012-12-30T09:00+14:00"]),
        # A time that comes twice: at the first of the two.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        # Any hour: real time.
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-25T01:00",
            ["2026-10-25T01:30+02:00", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"],
        ),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
        (
            "0 */2 * * *",
            "Europe/Berlin",
            "2026-10-25T00:30",
            ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T04:00+01:00"],
        ),
        (
            "*/15 * * * *",
            "Australia/Lord_Howe",
            "2026-04-05T01:40",
            ["2026-04-05T01:45+11:00", "2026-04-05T01:30+10:30", "2026-04-05T01:45+10:30", "2026-04-05T02:00+10:30"],
        ),
        # Nothing happens.
        ("45 5 * * *", "Asia/Kathmandu", "2026-03-28T12:00", ["2026-03-29T05:45+05:45", "2026-03-30T05:45+05:45"]),
        # Calendars.
        ("0 9 * * mon-fri", "UTC", "2026-01-02T10:00", ["2026-01-05T09:00+00:00", "2026-01-06T09:00+00:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00", ["2104-02-29T00:00+00:00"]),
        ("0 0 l * *", "UTC", "2026-01-30T00:00", ["2026-01-31T00:00+00:00", "2026-02-28T00:00+00:00"]),
        ("0 0 13 * 5", "UTC", "2026-01-09T12:00", ["2026-01-13T00:00+00:00", "2026-01-16T00:00+00:00"]),
        ("0 0 * * 7", "UTC", "2026-01-01T00:00", ["2026-01-04T00:00+00:00", "2026-01-11T00:00+00:00"]),
        ("@daily", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"]),
    ],
)
def test_what_the_clock_on_the_wall_means(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert local(cron(expression, zone), after, len(expected)) == expected


def test_after_the_first_pass_the_second_is_not_due_again() -> None:
    """Asked in the middle of the hour that comes twice, in its second pass."""
    second_pass = at("2026-10-25T01:10:00+00:00")
    assert next_due(cron("30 2 * * *", "Europe/Berlin"), second_pass) == at("2026-10-26T01:30:00+00:00")
    assert next_due(cron("30 * * * *", "Europe/Berlin"), second_pass) == at("2026-10-25T01:30:00+00:00")


@cache
def minutes(zone: str, start: str, end: str) -> list[tuple[int, datetime]]:
    """Each minute of a window, and what the clock shows then."""
    found = []
    us, end_us = instant(start, zone), instant(end, zone)
    while us <= end_us:
        found.append((us, datetime.fromtimestamp(us // SECOND, ZoneInfo(zone)).replace(tzinfo=None, fold=0)))
        us += MINUTE
    return found


def counted(zone: str, start: str, end: str, minute: set[int], hour: set[int] | None, weekday: set[int]) -> list[int]:
    """The due times of a window, found by looking at each of its minutes."""
    table = minutes(zone, start, end)

    def matches(wall: datetime) -> bool:
        return wall.minute in minute and (hour is None or wall.hour in hour) and wall.isoweekday() % 7 in weekday

    if hour is None:
        return [us for us, wall in table[1:] if matches(wall)]
    first: dict[datetime, int] = {}
    for us, wall in table:
        first.setdefault(wall, us)
    due = set()
    wall = table[0][1]
    while wall <= table[-1][1]:
        if matches(wall):
            # A wall time that no minute shows is left out: the first minute that shows a later one ends the gap.
            due.add(first[wall] if wall in first else next(us for us, shown in table if shown > wall))
        wall += timedelta(minutes=1)
    return sorted(us for us in due if us > table[0][0])


some = st.sets(st.integers(0, 59), min_size=1, max_size=5)


@given(
    window=st.sampled_from(WINDOWS),
    minute=some,
    hour=st.none() | st.sets(st.integers(0, 23), min_size=1, max_size=4) | st.just({1, 2, 3}),
    weekday=st.just(set(range(7))) | st.sets(st.integers(0, 6), min_size=1),
)
@settings(max_examples=150, deadline=None)
def test_it_equals_what_looking_at_each_minute_finds(
    window: tuple[str, str, str], minute: set[int], hour: set[int] | None, weekday: set[int]
) -> None:
    zone, start, end = window
    hours = "*" if hour is None else ",".join(map(str, sorted(hour)))
    days = "*" if len(weekday) == 7 else ",".join(map(str, sorted(weekday)))
    recurrence = cron(f"{','.join(map(str, sorted(minute)))} {hours} * * {days}", zone)
    table = minutes(zone, start, end)
    found = list(takewhile(lambda us: us <= table[-1][0], due_times(recurrence, table[0][0])))
    assert found == counted(zone, start, end, minute, hour, weekday)


field = st.sampled_from(["*", "*/7", "0", "5,35", "10-20/3"])
recurrences = st.one_of(
    st.builds(
        lambda m, h, dom, dow, zone: cron(f"{m} {h} {dom} * {dow}", zone),
        field,
        st.sampled_from(["*", "*/2", "2", "0,2,3", "1-4", "23"]),
        st.sampled_from(["*", "1", "29,30,31", "*/2"]),
        st.sampled_from(["*", "0", "mon-fri", "7"]),
        st.sampled_from([zone for zone, _, _ in WINDOWS]),
    ),
    st.builds(
        lambda s, anchor: Recurrence(kind="every", expression=repr(s), anchor_us=anchor),
        st.floats(1, 1e6).map(lambda s: round(s, 6)),
        st.integers(0, 2 * 10**15),
    ),
)
instants = st.integers(at("2008-01-01T00:00"), at("2040-01-01T00:00"))


@given(recurrence=recurrences, after=instants)
@settings(max_examples=200, deadline=None)
def test_due_times_come_after_and_only_grow(recurrence: Recurrence, after: int) -> None:
    found = list(islice(due_times(recurrence, after), 12))
    assert found[0] > after
    assert all(earlier < later for earlier, later in pairwise(found))


@given(recurrence=recurrences, after=instants, between=st.integers(0, 11))
@settings(max_examples=150, deadline=None)
def test_going_on_from_any_of_them_finds_the_same(recurrence: Recurrence, after: int, between: int) -> None:
    found = list(islice(due_times(recurrence, after), 12))
    assert list(islice(due_times(recurrence, found[between]), 12))[: 11 - between] == found[between + 1 :]
    assert next_due(recurrence, found[between] - 1) == found[between]


@given(recurrence=recurrences, after=instants, length=st.integers(1, 60), most=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_the_newest_are_the_last_of_all(recurrence: Recurrence, after: int, length: int, most: int) -> None:
    found = list(islice(due_times(recurrence, after), length))
    assert newest_due(recurrence, found[0], found[-1], most) == found[-most:]
    assert newest_due(recurrence, found[0], found[-1] + 1, most) == found[-most:]


@given(
    expression=st.sampled_from(
        [
            "0 * 1 * *",
            "30 */2 29 2 *",
            "*/20 * 25-31 3,10 0",
            "15 * 1 11 *",
            "0 * * * sun",
            "59 * 30 12 *",
            "0 */23 l * *",
        ]
    ),
    zone=st.sampled_from([zone for zone, _, _ in WINDOWS]),
    after=instants,
)
@settings(max_examples=80, deadline=None)
def test_jumping_to_what_is_far_away_misses_nothing(expression: str, zone: str, after: int) -> None:
    found = list(islice(due_times(cron(expression, zone), after), 40))
    with mock.patch.object(recurrence_module, "NEAR_US", 10**18):
        assert list(islice(due_times(cron(expression, zone), after), 40)) == found


def test_every_counts_from_its_anchor_without_drift() -> None:
    recurrence = Recurrence(kind="every", expression="1.5", anchor_us=100)
    assert list(islice(due_times(recurrence, 100), 3)) == [1_500_100, 3_000_100, 4_500_100]
    assert next_due(recurrence, 3_000_099) == 3_000_100
    assert next_due(recurrence, 3_000_100) == 4_500_100
    assert next_due(recurrence, 0) == 1_500_100, "its anchor itself is no due time"


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-07-01T12:00:00+02:00", "UTC", "2026-07-01T10:00:00"),
        ("2026-07-01T12:00:00", "Europe/Berlin", "2026-07-01T10:00:00"),
        ("2026-07-01T12:00:00.250000", "Asia/Kathmandu", "2026-07-01T06:15:00.250000"),
        ("2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00"),
        ("2026-03-29T02:30:00", "Europe/Berlin", "2026-03-29T01:00:00"),
        ("2011-12-30T08:00:00", "Pacific/Apia", "2011-12-30T10:00:00"),
    ],
)
def test_one_time(text: str, zone: str, expected: str) -> None:
    due_us = round(datetime.fromisoformat(expected).replace(tzinfo=UTC).timestamp() * SECOND)
    recurrence = Recurrence(kind="at", expression=text, zone=zone)
    assert next_due(recurrence, due_us - 1) == due_us
    assert next_due(recurrence, due_us) is None


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "*/5 0-6,22 1 jan,JUL mon-FRI",
        "0 0 l * *",
        "0 9 * * 1#2",
        "0 9 * * l5",
        "@hourly",
        "@Weekly",
        "0 0 ? * 7",
    ],
)
def test_a_cron_expression(text: str) -> None:
    assert is_cron(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "* * * * * *", "0 0 1 1 * 0 2027", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
        "* * * * 8", "r * * * *", "H * * * *", "R(1-5) * * * *", "*/0 * * * *", "a b c d e", "@reboot", "@never",
        "* * * * mon-", "1;2 * * * *", "٣ * * * *", "-1 * * * *",
    ],
)  # fmt: skip
def test_no_cron_expression(text: str) -> None:
    assert not is_cron(text)


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_an_expression_that_never_comes(text: str) -> None:
    assert is_cron(text)
    assert next_due(cron(text, "Europe/Berlin"), at("2026-01-01T00:00")) is None


@pytest.mark.parametrize("name", ["Europe/Berlin", "UTC", "Etc/GMT+5", "Asia/Kathmandu"])
def test_a_zone(name: str) -> None:
    assert find_zone(name) is not None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Europe/Berln",
        "../../etc/passwd",
        "/etc/localtime",
        "localtime",
        "posix/UTC",
        "right/UTC",
        "a\x00b",
        "Europe",
    ],
)
def test_no_zone(name: str) -> None:
    assert find_zone(name) is None
