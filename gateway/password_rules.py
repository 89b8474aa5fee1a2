"""Which passwords may be chosen: length, and nothing that guessing tries first. No composition rules."""

from __future__ import annotations

import re
from importlib.resources import files

from storage.errors import InvalidRequest

MAX_LENGTH = 128
_SEQUENCES = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "1q2w3e4r5t6y7u8i9o0p",
    "!@#$%^&*()_+",
)
_LEET = str.maketrans("@4301!57$8", "aaeoiistsb")
_DECORATION = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_REPEATED = re.compile(r"(.{1,4}?)\1+", re.DOTALL)
_MAX_DECORATION = 6


def load_common_passwords() -> frozenset[str]:
    """The words of common_passwords.txt in lower case."""
    text = files("gateway").joinpath("common_passwords.txt").read_text(encoding="utf-8")
    words = (line.strip() for line in text.splitlines() if not line.startswith("#"))
    return frozenset(word for line in words for word in line.split())


class PasswordRules:
    """Checks a new password; `InvalidRequest` says what is wrong with it."""

    def __init__(self, *, min_length: int, common: frozenset[str]) -> None:
        self._min_length = min_length
        self._common = common

    def check(self, password: str, *, username: str, field: str = "password") -> None:
        if len(password) < self._min_length:
            raise InvalidRequest(f"{field}: at least {self._min_length} characters", field=field)
        if len(password) > MAX_LENGTH:
            raise InvalidRequest(f"{field}: at most {MAX_LENGTH} characters", field=field)
        folded = password.casefold()
        if folded == username.casefold():
            raise InvalidRequest(f"{field}: must not be the username", field=field)
        if self.is_common(folded):
            raise InvalidRequest(
                f"{field}: too easy to guess",
                field=field,
                hint="a few unrelated words are long and easy to keep",
            )

    def is_common(self, folded: str) -> bool:
        """A known password, one with a little decoration (`P@ssw0rd123!`), a keyboard run or a repetition."""
        spellings = {folded, folded.translate(_LEET)}
        spellings |= {_undecorated(each) for each in spellings}
        spellings |= {each.translate(_LEET) for each in spellings}
        spellings |= {each[::-1] for each in spellings}
        return not self._common.isdisjoint(spellings) or _is_pattern(folded)


def _undecorated(password: str) -> str:
    bare = _DECORATION.sub("", password)
    return bare if len(password) - len(bare) <= _MAX_DECORATION else password


def _is_pattern(folded: str) -> bool:
    if _REPEATED.fullmatch(folded):
        return True
    return any(folded in run or folded[::-1] in run for run in _SEQUENCES)
