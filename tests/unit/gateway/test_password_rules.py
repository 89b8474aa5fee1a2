from __future__ import annotations

import pytest

from gateway.password_rules import MAX_LENGTH, PasswordRules, load_common_passwords
from storage.errors import InvalidRequest

RULES = PasswordRules(min_length=8, common=load_common_passwords())


def test_the_list_is_lower_case_and_long_enough() -> None:
    words = load_common_passwords()
    assert len(words) > 1000
    assert all(word == word.casefold() for word in words)


@pytest.mark.parametrize(
    "password",
    [
        *("password", "PASSWORD", "P@ssw0rd123!", "passw0rd", "drowssap", "!!password!!", "letmein2024"),
        *("12345678", "87654321", "qwertyui", "asdfghjkl", "1qaz2wsx", "zyxwvuts", "abcdefgh"),
        *("aaaaaaaa", "abababab", "abc1abc1", "        ", "michael1990", "Summer2024!", "l0v3ly12"),
    ],
)
def test_what_is_guessed_first_is_refused(password: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        RULES.check(password, username="ada")
    assert refused.value.field == "password"
    assert password not in refused.value.message.removeprefix("password: ")


@pytest.mark.parametrize(
    "password",
    [
        *(
            "a quiet green lamp",
            "tr0ub4dor&3x",
            "kz8-Wq!r",
            "пароль длинный",
            "密码密码很长的密码",
            "x7" * 31 + "y!",
        ),
        *("monkey wrench 77", "🦀🦀🐍🐍🦀🐍🐍🐍", "no-composition-rules"),
    ],
)
def test_anything_else_is_accepted(password: str) -> None:
    RULES.check(password, username="ada")


@pytest.mark.parametrize("length", [0, 7, MAX_LENGTH + 1])
def test_length_has_bounds(length: int) -> None:
    with pytest.raises(InvalidRequest):
        RULES.check(("k7!w" * 40)[:length], username="ada")


def test_the_username_is_no_password() -> None:
    with pytest.raises(InvalidRequest, match="username"):
        RULES.check("ADA@Example.org", username="ada@example.org")
