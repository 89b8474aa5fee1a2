"""Signatures and payloads that the providers publish, and what each has that the others have not."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import msgspec
import pytest

from actors.channels.adapters import ADAPTERS
from actors.channels.feishu import decrypt
from actors.channels.inbound import HttpRequest, Reception, SignatureRejected, Unreadable
from actors.channels.settings import ChannelAccountSettings
from actors.channels.signatures import check_equal, check_window, hmac_sha256
from actors.channels.standard_webhook import verify
from tests.support.channel_requests import (
    ACCOUNTS,
    NOW_S,
    feishu,
    feishu_encrypted,
    feishu_event,
    request,
    slack,
    slack_event,
    telegram,
    telegram_update,
    whatsapp,
    whatsapp_text,
    whatsapp_value,
)


def test_the_vector_of_standard_webhooks() -> None:
    signed = request(
        b'{"test": 2432232314}',
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,aaaa v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1a,bbbb"),
    )
    verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", signed, 1614265330)
    with pytest.raises(SignatureRejected):
        verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", signed, 1614265330 + 301)


def test_the_vector_of_slack() -> None:
    form = {
        "token": "xyzz0WbapA4vBCDEFasx0q6G",
        "team_id": "T1DC2JH3J",
        "team_domain": "testteamnow",
        "channel_id": "G8PSS9T3V",
        "channel_name": "foobar",
        "user_id": "U2CERLKJA",
        "user_name": "roadrunner",
        "command": "/webhook-collect",
        "text": "",
        "response_url": "https://hooks.slack.com/commands/T1DC2JH3J/397700885554/96rGlfmibIGlgcZRskXaIFfN",
        "trigger_id": "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
    }
    signed = request(
        urlencode(form).encode(),
        ("X-Slack-Request-Timestamp", "1531420618"),
        ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    )
    account = ChannelAccountSettings(channel="slack", signing_secret="8f742231b10e8888abcd99yyyzzz85a5")
    with pytest.raises(Unreadable):  # the signature holds; a slash command is no event
        ADAPTERS["slack"].receive(account, signed, 1531420618)
    with pytest.raises(SignatureRejected):
        ADAPTERS["slack"].receive(account, msgspec.structs.replace(signed, body=signed.body + b" "), 1531420618)


def test_the_vector_of_feishu() -> None:
    assert decrypt("test key", "P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk=") == b"hello world"


def test_the_vector_of_hub_signatures() -> None:
    """WhatsApp signs as GitHub does, which publishes one."""
    mac = hmac_sha256("It's a Secret to Everybody", b"Hello, World!").hexdigest()
    assert mac == "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_nothing_equals_an_empty_secret() -> None:
    with pytest.raises(SignatureRejected):
        check_equal("", "", "token")


def test_the_window_takes_whole_seconds_only() -> None:
    check_window(str(NOW_S), NOW_S)
    with pytest.raises(SignatureRejected):
        check_window("²", NOW_S)


def test_slack_s_challenge_is_answered_when_it_is_signed() -> None:
    body = json.dumps({"token": "t", "challenge": "3eZbrw1aB10FEMAGAZd4FyFQ", "type": "url_verification"}).encode()
    answered = ADAPTERS["slack"].receive(ACCOUNTS["slack"], slack(body, NOW_S), NOW_S)
    assert answered.answer == b'{"challenge":"3eZbrw1aB10FEMAGAZd4FyFQ"}'
    with pytest.raises(SignatureRejected):
        ADAPTERS["slack"].receive(ACCOUNTS["slack"], request(body), NOW_S)


def test_slack_s_mention_is_the_message_in_its_channel() -> None:
    """Both events of one message have one id; the answer goes into its thread."""
    text = "<@U0LAN0Z89> is it &lt;b&gt; &amp; c?"
    events = [
        slack_event(type="app_mention", channel="C0LAN2Q65", text=text, channel_type=""),
        slack_event(type="message", channel="C0LAN2Q65", text=text, channel_type="channel"),
    ]
    found = [
        ADAPTERS["slack"].receive(ACCOUNTS["slack"], slack(json.dumps(event).encode(), NOW_S), NOW_S)
        for event in events
    ]
    assert found[0] == found[1]
    (message,) = found[0].messages
    assert (message.text, message.peer_kind) == ("is it <b> & c?", "group")
    assert message.reply_thread == message.thread == "1355517523.000005"


def test_feishu_s_challenge_comes_without_a_signature_but_with_the_token() -> None:
    plain = {"challenge": "ajls384kdjx98XX", "token": "feishu-verification", "type": "url_verification"}
    signed = request(feishu_encrypted(json.dumps(plain).encode()))
    assert ADAPTERS["feishu"].receive(ACCOUNTS["feishu"], signed, NOW_S).answer == b'{"challenge":"ajls384kdjx98XX"}'
    forged = request(feishu_encrypted(json.dumps(plain | {"token": "guess"}).encode()))
    with pytest.raises(SignatureRejected):
        ADAPTERS["feishu"].receive(ACCOUNTS["feishu"], forged, NOW_S)


def test_feishu_s_events_are_never_taken_without_a_signature() -> None:
    unsigned = request(feishu_encrypted(json.dumps(feishu_event()).encode()))
    with pytest.raises(SignatureRejected):
        ADAPTERS["feishu"].receive(ACCOUNTS["feishu"], unsigned, NOW_S)


def test_feishu_s_reply_in_a_group_names_the_message() -> None:
    event = feishu_event(chat_type="group", content='{"text": "@_user_1 hello"}', thread_id="omt_1")
    found = ADAPTERS["feishu"].receive(ACCOUNTS["feishu"], feishu(json.dumps(event).encode(), NOW_S), NOW_S)
    (message,) = found.messages
    assert (message.text, message.thread, message.reply_to) == ("hello", "omt_1", message.message_id)


def test_whatsapp_s_url_check() -> None:
    def check(**query: str) -> Reception:
        names = {"mode": "subscribe", "verify_token": "whatsapp-verify", "challenge": "1158201444"} | query
        pairs = tuple((f"hub.{name}", value) for name, value in names.items())
        return ADAPTERS["whatsapp"].receive(
            ACCOUNTS["whatsapp"], HttpRequest(method="GET", headers=(), query=pairs), NOW_S
        )

    assert check().answer == b"1158201444"
    for wrong in ({"verify_token": "guess"}, {"mode": "unsubscribe"}):
        with pytest.raises(SignatureRejected):
            check(**wrong)


def test_whatsapp_sends_many_messages_at_once() -> None:
    photo = {"from": "1", "id": "wamid.3", "type": "image", "image": {}}
    value = whatsapp_value(whatsapp_text("one", "wamid.1"), photo, whatsapp_text("two", "wamid.2"))
    found = ADAPTERS["whatsapp"].receive(ACCOUNTS["whatsapp"], whatsapp(json.dumps(value).encode(), NOW_S), NOW_S)
    assert [message.text for message in found.messages] == ["one", "two"]
    assert found.omitted == ("unsupported",)


def test_whatsapp_s_other_numbers_are_not_ours() -> None:
    value = whatsapp_value(whatsapp_text(), metadata={"phone_number_id": "1"})
    found = ADAPTERS["whatsapp"].receive(ACCOUNTS["whatsapp"], whatsapp(json.dumps(value).encode(), NOW_S), NOW_S)
    assert found == Reception(omitted=("unsupported",))


def test_telegram_s_topics_and_groups() -> None:
    update = telegram_update(
        chat={"id": -100123, "type": "supergroup"}, text="hi", message_thread_id=42, is_topic_message=True
    )
    found = ADAPTERS["telegram"].receive(ACCOUNTS["telegram"], telegram(json.dumps(update).encode(), NOW_S), NOW_S)
    (message,) = found.messages
    assert (message.peer, message.peer_kind, message.thread, message.reply_to) == ("-100123", "group", "42", "1365")


def test_empty_and_endless_texts_are_left_out() -> None:
    for text, why in (("  \0 ", "empty"), ("x" * 100_001, "too_long")):
        body = json.dumps(telegram_update(text=text)).encode()
        assert ADAPTERS["telegram"].receive(ACCOUNTS["telegram"], telegram(body, NOW_S), NOW_S).omitted == (why,)
