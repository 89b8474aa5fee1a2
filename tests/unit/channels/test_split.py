"""Long answers in parts: none too long, nothing lost, words whole, code in its fence."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.channels.split import CUT, MAX_PARTS, split, utf16_units


def words(text: str) -> list[str]:
    return re.sub(r"^ {0,3}```.*$", "", text, flags=re.MULTILINE).split()


def test_a_short_text_is_one_part() -> None:
    assert split("  Hello\n", 100) == ["Hello"]
    assert split("x" * 100, 100) == ["x" * 100]
    assert split("", 100) == []


def test_paragraphs_come_first_then_lines_then_words() -> None:
    assert split("aaa bbb\nccc\n\nddd eee", 18) == ["aaa bbb\nccc", "ddd eee"]
    assert split("aaa bbb ccc\nddd eee", 18) == ["aaa bbb ccc", "ddd eee"]
    assert split("aaaa bbbb cccc dddd", 18) == ["aaaa bbbb cccc", "dddd"]


def test_a_word_that_fits_nowhere_is_cut() -> None:
    parts = split("x" * 50, 24)
    assert "".join(parts) == "x" * 50
    assert max(map(len, parts)) <= 24


def test_code_stays_in_its_fence() -> None:
    text = "Look:\n\n```python\n" + "\n".join(f"    line({number})" for number in range(20)) + "\n```\nDone."
    parts = split(text, 120)
    assert len(parts) > 2
    for part in parts:
        assert part.count("```") % 2 == 0
    assert all(part.startswith("```python\n    line(") for part in parts[1:-1])
    assert words("\n".join(parts)) == words(text)


def test_the_indentation_of_code_is_kept() -> None:
    text = "```\n" + "\n".join(f"        deep{number}" for number in range(12)) + "\n```"
    for part in split(text, 100):
        assert all(line.startswith("        deep") for line in part.splitlines() if "deep" in line)


def test_an_endless_text_says_that_it_was_cut() -> None:
    parts = split("word " * 10_000, 100)
    assert len(parts) == MAX_PARTS
    assert parts[-1].endswith(CUT)
    assert max(map(len, parts)) <= 100


def test_telegram_counts_pairs() -> None:
    parts = split("😀" * 100, 64, utf16_units)
    assert "".join(parts) == "😀" * 100
    assert max(map(utf16_units, parts)) <= 64


@pytest.mark.parametrize("size", [len, utf16_units])
@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab \n`😀<&", max_size=400), limit=st.integers(70, 120))
def test_no_part_is_too_long_and_no_letter_is_lost(size: object, text: str, limit: int) -> None:
    parts = split(text, limit, size)  # type: ignore[arg-type]
    assert all(size(part) <= limit for part in parts)  # type: ignore[operator]
    assert re.sub(r"[\s`]", "", "".join(parts)).count("a") >= text.count("a")


@settings(max_examples=300, deadline=None)
@given(text=st.lists(st.text(alphabet="abc", min_size=1, max_size=30), max_size=60))
def test_words_stay_whole(text: list[str]) -> None:
    joined = " ".join(text)
    assert " ".join(split(joined, 70)).split() == text
