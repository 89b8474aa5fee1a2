"""Secrets at rest: sealed with the first key, opened with any, and never told."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from actors.errors import InvalidRequest
from actors.secrets import SecretBox, SecretUnreadable, is_key

CANARY = "whsec_canary-4711"


def key() -> str:
    return Fernet.generate_key().decode()


def test_what_is_sealed_can_be_opened_and_does_not_show() -> None:
    box = SecretBox([key()])
    sealed = box.seal(CANARY, field="webhook.secret")
    assert CANARY not in sealed
    assert box.open(sealed) == CANARY
    assert box.seal(CANARY, field="x") != sealed, "the same secret twice must not look the same"


def test_a_new_first_key_seals_and_the_old_one_still_opens() -> None:
    old, new = key(), key()
    sealed = SecretBox([old]).seal(CANARY, field="x")
    both = SecretBox([new, old])
    assert both.open(sealed) == CANARY
    resealed = both.seal(CANARY, field="x")
    assert SecretBox([new]).open(resealed) == CANARY
    with pytest.raises(SecretUnreadable) as caught:
        SecretBox([new]).open(sealed)
    assert CANARY not in str(caught.value)
    assert sealed not in str(caught.value)


def test_without_a_key_a_secret_is_refused_by_name() -> None:
    box = SecretBox([])
    assert not box
    with pytest.raises(InvalidRequest, match=r"security\.secrets_keys") as caught:
        box.seal(CANARY, field="webhook.secret")
    assert caught.value.field == "webhook.secret"
    assert CANARY not in str(caught.value)
    with pytest.raises(SecretUnreadable, match=r"security\.secrets_keys"):
        box.open("gAAAA")


@pytest.mark.parametrize("sealed", ["", "nonsense", "é", "gAAAAABl"])
def test_nonsense_is_not_opened(sealed: str) -> None:
    with pytest.raises(SecretUnreadable):
        SecretBox([key()]).open(sealed)


@pytest.mark.parametrize(
    ("text", "good"),
    [("", False), ("short", False), ("a" * 43 + "=", True), ("+" * 43 + "=", True), ("é" * 44, False)],
)
def test_keys_are_told_from_other_text(text: str, good: bool) -> None:
    assert is_key(text) is good
