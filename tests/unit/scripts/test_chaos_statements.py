"""The statements of a chaos run: audited, and in the control without what makes a completion refusable."""

from __future__ import annotations

import pytest

from scripts.chaos_runs.statements import changed, replaced
from storage.statements import load

AUDITED = {"commit_round", "finish_turn", "finish_and_leave"}


def test_a_fenced_run_only_adds_the_audit() -> None:
    product = load("postgres")
    queries = changed(product, fenced=True)
    assert {name for name in product if queries[name] != product[name]} == AUDITED
    for name in AUDITED:
        before, _, after = product[name].rpartition("\n)\nSELECT ")
        assert queries[name].startswith(before)
        assert queries[name].endswith(after)


def test_the_control_takes_out_epoch_owner_attempt_and_state() -> None:
    queries = changed(load("postgres"), fenced=False)
    for name in (*AUDITED, "append_events"):
        fences = queries[name].partition("said AS")[0]
        for fence in ("epoch =", "IS NOT NULL ORDER", "attempt =", "'queued', 'running'", "status = 'running'"):
            assert fence not in fences, (name, fence)


def test_a_statement_that_has_changed_stops_the_run() -> None:
    with pytest.raises(ValueError, match="commit_round: expected 'no such text' once, found it 0 times"):
        replaced("commit_round", load("postgres")["commit_round"], "no such text", "")
