"""Which answers of a provider are for good, which are tried again, and when: one table for all of them.

A pause is full jitter: a random time between nothing and `min(base_s * 2^(failures - 1), cap_s)`, or what the provider
asked for (`Retry-After`), up to `max_retry_after_s`. A delivery is dead after `attempts` failures, or when its next
attempt would begin `total_s` after its first.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import msgspec

from actors.channels.base import Lost, Outcome, Refused, Sent
from actors.models.backoff import Backoff
from storage.outbox_records import AttemptOutcome, OutboxItem, OutboxResult

DAY_S = 86_400.0
DETAIL_BYTES = 1024
RATE_LIMITED = 429
_PASSING_4XX = frozenset({408, 409, 421, 423, 425, 429})
"""Refusals of a client that another try may not meet."""
EGRESS_REFUSED = "egress_refused"
"""Our own guard does not let it out."""
UNREADABLE = "unreadable"
"""Our own record of the delivery, or its secret, cannot be read."""

Trouble = Literal["none", "rate", "outage"]
"""What an answer tells of the account: it answers; it is asked too often; it is away."""


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider's refusals are taken. Its own codes (`permanent`, `passing`) come before HTTP statuses."""

    attempts: int = 12
    total_s: float = DAY_S
    base_s: float = 1.0
    cap_s: float = 600.0
    permanent: frozenset[str] = frozenset()
    passing: frozenset[str] = frozenset()

    def is_permanent(self, refused: Refused) -> bool:
        """Whether the same delivery would be refused again."""
        if refused.code in (EGRESS_REFUSED, UNREADABLE) or refused.code in self.permanent:
            return True
        if refused.status is None or refused.code in self.passing:
            return False
        return 300 <= refused.status < 500 and refused.status not in _PASSING_4XX


RULES: dict[str, RetryRule] = {
    # A receiver may be down for a long weekend.
    "webhook": RetryRule(attempts=400, total_s=3 * DAY_S, base_s=5.0, cap_s=3600.0),
    "callback": RetryRule(attempts=400, total_s=3 * DAY_S, base_s=5.0, cap_s=3600.0),
    "slack": RetryRule(
        permanent=frozenset(
            {
                *("account_inactive", "channel_not_found", "invalid_auth", "invalid_blocks", "is_archived"),
                *("missing_scope", "msg_too_long", "no_permission", "no_text", "not_authed", "not_in_channel"),
                *("token_expired", "token_revoked", "user_not_found"),
            }
        ),
        passing=frozenset({"fatal_error", "internal_error", "ratelimited", "request_timeout", "service_unavailable"}),
    ),
    "telegram": RetryRule(base_s=2.0),
    "discord": RetryRule(base_s=2.0),
}
ANY = RetryRule()
"""For a provider that has no line in the table."""


def rule_of(channel: str) -> RetryRule:
    return RULES.get(channel, ANY)


def trouble(channel: str, outcome: Outcome) -> Trouble:
    """What an answer tells of the account that it came from."""
    if isinstance(outcome, Lost):
        return "outage"
    if isinstance(outcome, Sent) or rule_of(channel).is_permanent(outcome):
        return "none"
    return "rate" if outcome.status == RATE_LIMITED else "outage"


def result_of(
    item: OutboxItem,
    outcome: Outcome,
    *,
    now_us: int,
    max_retry_after_s: float,
    draw: Callable[[], float] = random.random,
) -> OutboxResult:
    """What becomes of a delivery after an attempt: sent, dead, or pending until its next one."""
    if isinstance(outcome, Sent):
        return _ended(item, "sent", outcome.status, None, outcome.provider_id, now_us=now_us)
    rule = rule_of(item.channel)
    if isinstance(outcome, Lost):
        due_us = _next_us(rule, item, None, now_us, max_retry_after_s, draw)
        return _ended(item, "lost", None, "lost", outcome.detail, now_us=now_us, due_us=due_us)
    due_us = None
    if not rule.is_permanent(outcome):
        due_us = _next_us(rule, item, outcome.retry_after_s, now_us, max_retry_after_s, draw)
    return _ended(item, "refused", outcome.status, outcome.code, outcome.detail, now_us=now_us, due_us=due_us)


def crashed(item: OutboxItem, *, now_us: int) -> OutboxResult:
    """The process that sent it died: whether it was sent is unknown. It is sent again at once, while it may be."""
    over = item.failures + 1 >= rule_of(item.channel).attempts
    due_us = None if over else now_us
    return _ended(item, "crashed", None, "crashed", None, now_us=now_us, due_us=due_us)


def untried(item: OutboxItem, *, now_us: int) -> OutboxResult:
    """A claim whose answer was lost: nothing was sent."""
    result = crashed(item, now_us=now_us)
    return msgspec.structs.replace(result, outcome=None, counted=False, code=None, state="pending", due_us=now_us)


def _next_us(
    rule: RetryRule,
    item: OutboxItem,
    retry_after_s: float | None,
    now_us: int,
    max_retry_after_s: float,
    draw: Callable[[], float],
) -> int | None:
    """When the next attempt may begin; None if there is none."""
    failures = item.failures + 1
    if failures >= rule.attempts:
        return None
    backoff = Backoff(base_s=rule.base_s, max_s=rule.cap_s, max_retry_after_s=max_retry_after_s, draw=draw)
    due_us = now_us + round(backoff.delay_s(failures, retry_after_s) * 1e6)
    first_us = item.first_us if item.first_us is not None else now_us
    return due_us if due_us - first_us <= rule.total_s * 1e6 else None


def _ended(
    item: OutboxItem,
    outcome: AttemptOutcome,
    status: int | None,
    code: str | None,
    detail: str | None,
    *,
    now_us: int,
    due_us: int | None = None,
) -> OutboxResult:
    sent = outcome == "sent"
    return OutboxResult(
        delivery_id=item.delivery_id,
        attempt=item.attempt,
        state="sent" if sent else "dead" if due_us is None else "pending",
        due_us=now_us if due_us is None else due_us,
        outcome=outcome,
        counted=not sent,
        status=status,
        code=code,
        detail=head(detail),
        finished_us=now_us,
    )


def head(text: str | None) -> str | None:
    """At most `DETAIL_BYTES` of a text."""
    if text is None:
        return None
    return text.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore")
