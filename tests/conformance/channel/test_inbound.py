"""What comes in: a signature over the raw body, in its window, once; then the documented payloads."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.channels.adapters import ADAPTERS
from actors.channels.inbound import HttpRequest, Reception, SignatureRejected, Unreadable
from tests.support.channel_requests import ACCOUNTS, CASES, NOW_S, Case


def received(case: Case, request: HttpRequest, now_s: float = NOW_S) -> Reception:
    return ADAPTERS[case.name].receive(case.account, request, now_s)


def with_header(request: HttpRequest, name: str, value: str | None) -> HttpRequest:
    headers = tuple(header for header in request.headers if header[0] != name)
    return msgspec.structs.replace(request, headers=headers if value is None else (*headers, (name, value)))


def header(request: HttpRequest, name: str) -> str:
    return next(value for key, value in request.headers if key == name)


def test_a_signed_message_is_read(case: Case) -> None:
    assert received(case, case.sign(case.body(), NOW_S)) == Reception(messages=(case.expected,))


def test_header_names_are_compared_without_case(case: Case) -> None:
    request = case.sign(case.body(), NOW_S)
    headers = tuple((name.upper(), value) for name, value in request.headers)
    assert received(case, msgspec.structs.replace(request, headers=headers)).messages == (case.expected,)


@pytest.mark.parametrize("value", ["", "v0=", "v1,", "sha256=", "x" * 64, "v1,\udce9", None])
def test_another_signature_is_refused(case: Case, value: str | None) -> None:
    request = case.sign(case.body(), NOW_S)
    with pytest.raises(SignatureRejected):
        received(case, with_header(request, case.signature, value))


def test_a_signature_in_other_letters_is_refused(case: Case) -> None:
    request = case.sign(case.body(), NOW_S)
    with pytest.raises(SignatureRejected):
        received(case, with_header(request, case.signature, header(request, case.signature).swapcase()))


def test_a_signature_of_another_key_is_refused(case: Case) -> None:
    other = {name: f"{getattr(case.account, name)}2" for name in ("app_secret", "encrypt_key", "secret_token")}
    account = msgspec.structs.replace(
        case.account, **other, signing_secret="whsec_" + "b3RoZXIgc2VjcmV0IG9mIGVub3VnaCBieXRlcw=="
    )
    with pytest.raises(SignatureRejected):
        ADAPTERS[case.name].receive(account, case.sign(case.body(), NOW_S), NOW_S)


def test_an_account_without_a_secret_takes_nothing(case: Case) -> None:
    empty = dict.fromkeys(("app_secret", "encrypt_key", "secret_token", "signing_secret"), "")
    with pytest.raises(SignatureRejected):
        ADAPTERS[case.name].receive(
            msgspec.structs.replace(case.account, **empty), case.sign(case.body(), NOW_S), NOW_S
        )


def test_a_signature_that_is_there_twice_is_refused(case: Case) -> None:
    request = case.sign(case.body(), NOW_S)
    twice = (*request.headers, (case.signature.lower(), header(request, case.signature)))
    with pytest.raises(SignatureRejected):
        received(case, msgspec.structs.replace(request, headers=twice))


@pytest.mark.parametrize(("seconds", "accepted"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_the_window_is_300_seconds_both_ways(case: Case, seconds: int, accepted: bool) -> None:
    if case.timestamp is None:
        return  # these providers sign no time; what keeps repetitions out is the message's id
    request = case.sign(case.body(), NOW_S + seconds)
    if accepted:
        assert received(case, request).messages
    else:
        with pytest.raises(SignatureRejected):
            received(case, request)


@pytest.mark.parametrize("value", ["", "-1", "1e9", "nan", " 1800000000", "1800000000.0", "٣", "9" * 4000, None])
def test_a_timestamp_that_is_no_number_is_refused(case: Case, value: str | None) -> None:
    if case.timestamp is None:
        return
    with pytest.raises(SignatureRejected):
        received(case, with_header(case.sign(case.body(), NOW_S), case.timestamp, value))


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "telegram"], ids=lambda case: case.name)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_body_is_refused(case: Case, data: st.DataObject) -> None:
    """Telegram signs nothing but sends a token, over TLS."""
    request = case.sign(case.body(), NOW_S)
    at = data.draw(st.integers(0, len(request.body) - 1))
    change = data.draw(st.integers(1, 255))
    body = bytearray(request.body)
    body[at] ^= change
    with pytest.raises((SignatureRejected, Unreadable) if case.name == "feishu" else SignatureRejected):
        received(case, msgspec.structs.replace(request, body=bytes(body)))


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200))
def test_no_body_breaks_an_adapter(body: bytes) -> None:
    for case in CASES:
        try:
            received(case, case.sign(body, NOW_S))
        except (SignatureRejected, Unreadable):
            continue


def test_other_kinds_are_left_out(case: Case) -> None:
    for payload in case.unsupported:
        assert received(case, case.sign(case.body(payload), NOW_S)) == Reception(omitted=("unsupported",))


def test_messages_of_bots_are_left_out(case: Case) -> None:
    for payload in case.own:
        assert received(case, case.sign(case.body(payload), NOW_S)) == Reception(omitted=("own",))


def test_something_else_that_is_signed_is_unreadable(case: Case) -> None:
    for body in (b"", b"[]", b"null", b'{"text": 7, "message": 7, "type": 7, "entry": 7, "header": 7}', b"\xff\xfe"):
        with pytest.raises((Unreadable, SignatureRejected)):
            received(case, case.sign(body, NOW_S))


def test_every_account_of_the_suite_is_complete() -> None:
    assert set(ACCOUNTS) == set(ADAPTERS)
