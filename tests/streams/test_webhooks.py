"""Completion webhooks end to end: accepted over HTTP, recorded with the end, signed, retried, looked at, sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.streams.scene import Scene
from tests.streams.test_tasks import call, ended, inspect, submit
from tests.support.facts import eventually
from tests.support.receiver import SECRET, Receiver

Make = Callable[..., Awaitable[Scene]]
KEY = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
OTHER = "whsec_" + "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh"
QUEUE = {"poll_interval_ms": 200.0, "retry_base_ms": 1.0}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def world(scene: Make, receiver: Receiver) -> Scene:
    made = await scene(
        agent_queue=QUEUE,
        security={"secrets_keys": [KEY]},
        channels={"webhooks": {"secret": SECRET, "allow_hosts": [f"127.0.0.1:{receiver.port}"]}},
    )
    await made.cluster.start_pool()
    await made.cluster.start_outbox()
    return made


async def admin(scene: Scene, method: str, path: str = "", **options: Any) -> Any:
    url = f"{scene.client.url}/wunder/admin/outbox{path}"
    async with scene.client.http.request(method, url, **options) as response:
        body = await response.json()
        assert response.status == 200, body
        return body["data"]


async def deliveries(scene: Scene, task: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for found in (await admin(scene, "GET"))["items"] if found["task_id"] == task["task_id"]]


async def test_the_end_of_a_task_is_told_and_signed(world: Scene, receiver: Receiver) -> None:
    task = await submit(world, "echo hello", webhook={"url": f"{receiver.origin}/hook?x=1"})
    done = await ended(world, task)
    await eventually(lambda: receiver.got, "the webhook came")
    (got,) = receiver.got
    assert got.signed_by(SECRET)
    assert not got.signed_by(OTHER)
    assert (got.path, got.headers["content-type"]) == ("/hook", "application/json")
    assert got.event["type"] == "task.succeeded"
    data = got.event["data"]
    assert (data["task_id"], data["session_id"], data["status"]) == (task["task_id"], task["session_id"], "succeeded")
    assert (data["answer"], data["usage"], "error" in data) == (done["answer"], done["usage"], False)
    (delivery,) = await deliveries(world, task)
    assert (delivery["delivery_id"], delivery["channel"], delivery["account"], delivery["peer"]) == (
        got.id,
        "webhook",
        receiver.origin,
        task["session_id"],
    )


async def test_a_secret_of_its_own_signs_and_shows_nowhere(
    world: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    task = await submit(world, "echo hello", webhook={"url": f"{receiver.origin}/own", "secret": OTHER})
    await eventually(lambda: receiver.got, "the webhook came")
    assert receiver.got[0].signed_by(OTHER)
    assert not receiver.got[0].signed_by(SECRET)
    found = await inspect(world, task)
    shown = await admin(world, "GET", f"/{receiver.got[0].id}")
    store = next(iter(world.cluster.stores.values()))
    stored = await store.get_outbox(receiver.got[0].id)
    for text in (str(found), str(shown), caplog.text, str(stored), str(await store.get_task(found["task_id"]))):
        assert OTHER not in text
        assert OTHER.removeprefix("whsec_") not in text
    assert "secret" not in shown["body"]
    assert shown["body"]["url"] == f"{receiver.origin}/own"


async def test_it_is_tried_again_under_the_same_id_with_a_new_signature(world: Scene, receiver: Receiver) -> None:
    receiver.answers["/hook"] = [(500, {}, "not now"), (503, {"Retry-After": "0"}, "x" * 5000)]
    task = await submit(world, "echo hello", webhook={"url": f"{receiver.origin}/hook"})
    await ended(world, task)

    async def tried(times: int) -> bool:
        (delivery,) = await deliveries(world, task)
        if delivery["state"] == "pending":
            await admin(world, "POST", "/retry", json={"delivery_ids": [delivery["delivery_id"]]})  # it need not wait
        return len(receiver.got) >= times and delivery["state"] == "sent"

    await eventually(lambda: tried(3), "it arrived at last")
    assert len(set(receiver.ids("/hook"))) == 1
    assert all(got.signed_by(SECRET) for got in receiver.got)
    assert len({got.body for got in receiver.got}) == 1
    shown = await admin(world, "GET", f"/{receiver.got[0].id}")
    attempts = [(a["outcome"], a["status"], a["detail"]) for a in shown["attempts"]]
    assert attempts == [("refused", 500, "not now"), ("refused", 503, "x" * 1024), ("sent", 200, "thanks")]


async def test_what_is_refused_for_good_is_a_dead_letter_that_can_be_sent_again(
    world: Scene, receiver: Receiver
) -> None:
    receiver.answers["/hook"] = [(404, {}, "who?"), (302, {"Location": "/elsewhere"}, "")]
    task = await submit(world, "echo hello", webhook={"url": f"{receiver.origin}/hook"})

    async def is_(state: str, attempts: int) -> bool:
        found = await deliveries(world, task)
        return bool(found) and (found[0]["state"], found[0]["attempt"]) == (state, attempts)

    await eventually(lambda: is_("dead", 1), "it is dead")
    assert (await admin(world, "POST", "/retry", json={"state": "dead"}))["delivery_ids"] == [receiver.got[0].id]
    await eventually(lambda: is_("dead", 2), "a redirect is not followed")
    assert receiver.ids("/elsewhere") == []
    await admin(world, "POST", f"/{receiver.got[0].id}/retry")
    await eventually(lambda: is_("sent", 3), "it is sent")
    await admin(world, "POST", f"/{receiver.got[0].id}/retry")
    await eventually(lambda: is_("sent", 4), "and again, when it was sent already")
    assert set(receiver.ids("/hook")) == {receiver.got[0].id}
    assert receiver.got[-1].signed_by(SECRET)


async def test_a_task_that_fails_and_one_that_is_cancelled_before_it_starts(world: Scene, receiver: Receiver) -> None:
    hook = {"url": f"{receiver.origin}/hook"}
    failed = await submit(world, "fail refused", webhook=hook)
    await ended(world, failed, "failed")
    later = await submit(world, "echo never", webhook=hook, run_at="2100-01-01T00:00:00Z")
    status, receipt = await call(world, "DELETE", f"/{later['task_id']}")
    assert (status, receipt["cancelled"]) == (200, True)
    await eventually(lambda: len(receiver.got) == 2, "both came")
    events = {got.event["data"]["task_id"]: got.event for got in receiver.got}
    assert events[failed["task_id"]]["type"] == "task.failed"
    assert events[failed["task_id"]]["data"]["error"]["code"] == "LLM_UNAVAILABLE"
    assert events[later["task_id"]]["type"] == "task.cancelled"
    assert "answer" not in events[later["task_id"]]["data"]


async def test_a_task_that_is_tried_again_by_hand_tells_both_ends(world: Scene, receiver: Receiver) -> None:
    task = await submit(world, "fail refused", webhook={"url": f"{receiver.origin}/hook"})
    await ended(world, task, "failed")
    status, _ = await call(world, "POST", f"/{task['task_id']}/retry")
    assert status == 202
    await eventually(lambda: len(receiver.got) == 2, "both ends came")
    assert len(set(receiver.ids("/hook"))) == 2
    assert [got.event["data"]["attempt"] for got in receiver.got] == [1, 2]


async def test_ends_of_one_session_come_in_their_order(world: Scene, receiver: Receiver) -> None:
    hook = {"url": f"{receiver.origin}/hook"}
    first = await submit(world, "echo 0", webhook=hook)
    tasks = [first] + [await submit(world, f"echo {n}", session_id=first["session_id"], webhook=hook) for n in (1, 2)]
    await eventually(lambda: len(receiver.got) == 3, "all came")
    assert [got.event["data"]["task_id"] for got in receiver.got] == [task["task_id"] for task in tasks]


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ({"url": "ftp://a.example/"}, "webhook.url"),
        ({"url": "http://user:pw@a.example/"}, "webhook.url"),
        ({"url": "http://127.0.0.1:1/"}, "webhook.url"),
        ({"url": "http://10.1.2.3/"}, "webhook.url"),
        ({"url": "https://a.example:8443/"}, "webhook.url"),
        ({"url": "not a url"}, "webhook.url"),
        ({"url": ""}, "webhook.url"),
        ({}, "webhook.url"),
        ({"url": "https://a.example/", "secret": "short"}, "webhook.secret"),
        ({"url": "https://a.example/", "secret": "whsec_"}, "webhook.secret"),
    ],
)
async def test_a_webhook_that_cannot_be_is_refused_at_once(world: Scene, webhook: Any, field: str) -> None:
    body = {"question": "echo x", "user_id": "ada", "webhook": webhook}
    status, error = await call(world, "POST", "", json=body)
    assert (status, error["code"], error["field"]) == (400, "INVALID_REQUEST", field)
    secret = webhook.get("secret")
    assert not secret or secret == "whsec_" or secret not in error["message"]
    assert (await call(world, "GET", "?user_id=ada"))[1]["items"] == []


@pytest.mark.parametrize(
    ("sections", "secret", "names"),
    [({}, None, "channels.webhooks.secret"), ({"channels": {"webhooks": {"secret": SECRET}}}, OTHER, "secrets_keys")],
)
async def test_what_the_settings_cannot_do_is_said_by_name(
    scene: Make, sections: dict[str, Any], secret: str | None, names: str
) -> None:
    world = await scene(**sections)
    webhook = {"url": "https://a.example/", **({"secret": secret} if secret else {})}
    status, error = await call(world, "POST", "", json={"question": "x", "user_id": "ada", "webhook": webhook})
    assert (status, error["field"]) == (400, "webhook.secret")
    assert names in error["message"]


async def test_only_administrators_see_the_outbox(world: Scene) -> None:
    for method, path in (("GET", ""), ("GET", "/x"), ("POST", "/x/retry"), ("POST", "/x/drop"), ("POST", "/retry")):
        url = f"{world.client.url}/wunder/admin/outbox{path}"
        body = None if method == "GET" else {"state": "dead"}
        async with world.client.http.request(method, url, json=body, headers={"X-API-Key": "wrong"}) as response:
            assert response.status == 401


async def test_bad_requests_of_administrators(world: Scene) -> None:
    for method, path, body, wanted in (
        ("GET", "?state=odd", None, 400),
        ("GET", "?cursor=odd", None, 400),
        ("GET", "/none", None, 404),
        ("POST", "/none/retry", None, 404),
        ("POST", "/retry", {}, 400),
        ("POST", "/drop", {"state": "odd"}, 400),
        ("POST", "/drop", {"delivery_ids": ["x"] * 1001}, 400),
    ):
        url = f"{world.client.url}/wunder/admin/outbox{path}"
        async with world.client.http.request(method, url, json=body) as response:
            assert response.status == wanted, (method, path)
    assert await admin(world, "POST", "/drop", json={"delivery_ids": ["none"]}) == {"delivery_ids": [], "more": False}
