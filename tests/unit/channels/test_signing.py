"""Signatures of Standard Webhooks, against the published vector and against HMAC by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from actors.channels.signing import is_signing_secret, signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
NOW_US = 1_614_265_330_000_000


def test_the_published_vector() -> None:
    assert signed_headers([SECRET], ID, BODY, now_us=NOW_US) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_several_secrets_sign_side_by_side() -> None:
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    body = '{"a": "ä\\u0000\u2028"}'.encode()
    headers = signed_headers([other, SECRET], "dlv_1", body, now_us=NOW_US + 999_999)
    signatures = headers["webhook-signature"].split(" ")
    for secret, signature in zip([other, SECRET], signatures, strict=True):
        signing = base64.b64decode(secret.removeprefix("whsec_"))
        expected = hmac.new(signing, b"dlv_1.1614265330." + body, hashlib.sha256).digest()
        assert signature == f"v1,{base64.b64encode(expected).decode()}"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (SECRET, True),
        ("whsec_" + base64.b64encode(b"x" * 64).decode(), True),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), False),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), False),
        (SECRET.removeprefix("whsec_"), False),
        ("whsec_", False),
        ("whsec_not base64 at all, is it, not at all", False),
        ("", False),
    ],
)
def test_secrets_are_told_from_other_text(text: str, good: bool) -> None:
    assert is_signing_secret(text) is good
