"""The retry table: what is for good, what is tried again, when, and when no more."""

from __future__ import annotations

from typing import Any

import pytest

from actors.channels.base import Lost, Refused, Sent
from actors.channels.retries import ANY, DAY_S, RULES, crashed, head, result_of, rule_of, trouble, untried
from storage.outbox_records import OutboxItem, OutboxResult

NOW_US = 1_000_000_000


def item(channel: str = "webhook", **fields: Any) -> OutboxItem:
    values: dict[str, Any] = {
        "delivery_id": "d1", "account": "a", "peer": "p", "route": f"{channel} a", "seq": 1, "state": "sending",
        "ready": False, "due_us": 0, "body": b"{}", "turn_id": None, "attempt": 3, "failures": 0, "owner_id": None,
        "claimed_us": NOW_US, "first_us": NOW_US, "code": None, "created_us": 0, "finished_us": None, **fields,
    }  # fmt: skip
    return OutboxItem(channel=channel, **values)


def after(found: OutboxItem, outcome: Any, *, draw: float = 0.5, now_us: int = NOW_US) -> OutboxResult:
    return result_of(found, outcome, now_us=now_us, max_retry_after_s=3600.0, draw=lambda: draw)


@pytest.mark.parametrize(
    ("channel", "status", "code", "permanent"),
    [
        ("webhook", 400, "http_400", True),
        ("webhook", 404, "http_404", True),
        ("webhook", 410, "http_410", True),
        ("webhook", 302, "http_302", True),
        ("webhook", 408, "http_408", False),
        ("webhook", 425, "http_425", False),
        ("webhook", 429, "http_429", False),
        ("webhook", 500, "http_500", False),
        ("webhook", 503, "http_503", False),
        ("webhook", None, "unreachable", False),
        ("webhook", None, "egress_refused", True),
        ("webhook", None, "unreadable", True),
        ("slack", 200, "channel_not_found", True),
        ("slack", 200, "internal_error", False),
        ("slack", 200, "something_new", False),
        ("telegram", 403, "blocked", True),
        ("unheard_of", 401, "x", True),
        ("unheard_of", 502, "x", False),
    ],
)
def test_which_answers_are_for_good(channel: str, status: int | None, code: str, permanent: bool) -> None:
    refused = Refused(status=status, code=code)
    assert rule_of(channel).is_permanent(refused) is permanent
    found = after(item(channel), refused)
    assert found.state == ("dead" if permanent else "pending")
    assert (found.outcome, found.status, found.code, found.attempt, found.counted) == ("refused", status, code, 3, True)


def test_what_is_sent_is_over() -> None:
    found = after(item(), Sent(provider_id="m1", status=204))
    assert (found.state, found.outcome, found.status, found.counted) == ("sent", "sent", 204, False)


@pytest.mark.parametrize(("failures", "most_s"), [(0, 5), (1, 10), (2, 20), (9, 2560), (10, 3600), (300, 3600)])
def test_pauses_double_up_to_their_cap_and_chance_shortens_them(failures: int, most_s: float) -> None:
    refused = Refused(status=500, code="x")
    pauses = [(after(item(failures=failures), refused, draw=draw).due_us - NOW_US) / 1e6 for draw in (0.0, 0.5, 1.0)]
    assert pauses == pytest.approx([0.0, most_s / 2, most_s])


def test_what_a_provider_asks_for_is_kept_up_to_a_cap() -> None:
    for asked, least in ((30.0, 30.0), (99_999.0, 3600.0)):
        found = after(item(), Refused(status=429, code="x", retry_after_s=asked))
        assert least <= (found.due_us - NOW_US) / 1e6 <= least + 5


def test_webhooks_are_tried_for_72_hours_and_no_longer() -> None:
    assert RULES["webhook"].total_s == 72 * 3600
    refused = Refused(status=500, code="x")
    old = item(failures=100, first_us=NOW_US - round((3 * DAY_S - 3600) * 1e6))
    assert after(old, refused, draw=0.99).state == "pending"
    older = item(failures=100, first_us=NOW_US - round((3 * DAY_S - 60) * 1e6))
    assert after(older, refused, draw=0.99).state == "dead"
    assert after(older, Lost(detail="?"), draw=0.99).state == "dead"


def test_attempts_are_used_up() -> None:
    last = item("telegram", failures=ANY.attempts - 1)
    assert after(last, Refused(status=500, code="x")).state == "dead"
    assert crashed(last, now_us=NOW_US).state == "dead"


def test_the_unknown_are_marked() -> None:
    lost = after(item(), Lost(detail="no answer"))
    assert (lost.state, lost.outcome, lost.code, lost.detail) == ("pending", "lost", "lost", "no answer")
    found = crashed(item(), now_us=NOW_US)
    assert (found.state, found.outcome, found.due_us, found.counted) == ("pending", "crashed", NOW_US, True)
    found = untried(item(failures=ANY.attempts), now_us=NOW_US)
    assert (found.state, found.outcome, found.counted) == ("pending", None, False)


def test_what_an_answer_tells_of_the_account() -> None:
    told = {
        "none": [Sent(), Refused(status=404, code="x"), Refused(status=None, code="egress_refused")],
        "rate": [Refused(status=429, code="x")],
        "outage": [Lost(detail=""), Refused(status=500, code="x"), Refused(status=None, code="unreachable")],
    }
    assert {word: {trouble("webhook", o) for o in outcomes} for word, outcomes in told.items()} == {
        word: {word} for word in told
    }


def test_the_head_of_a_text_is_cut_between_characters() -> None:
    assert head(None) is None
    assert head("ä" * 600) == "ä" * 512
    assert head("x" + "ä" * 600) == "x" + "ä" * 511
