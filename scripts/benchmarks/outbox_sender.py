"""The sending side of the scenario `outbox`: an `Outbox`, or a plain loop; ends with its input."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop

from actors.channels.base import Channel, Delivery
from actors.channels.registry import channels_of
from actors.channels.retries import result_of
from actors.channels.settings import ChannelsSettings, OutboxProcessSettings, OutboxSettings, WebhooksSettings
from actors.clock import SystemClock
from actors.handles import DirectoryHandle
from actors.messages import encode
from actors.outbox import Outbox, OutboxServices
from actors.replies import Done
from scripts.benchmarks.outbox_plan import SenderPlan
from scripts.benchmarks.queue_wunder import open_store
from storage.records import OwnerId

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_OWNER = OwnerId("serial")


async def main(plan: SenderPlan) -> None:
    outbox = OutboxSettings(per_account=plan.per_account, per_channel={}, max_in_flight=4096)
    webhooks = WebhooksSettings(secret=SECRET, timeout_s=60.0, allow_hosts=(f"127.0.0.0/8:{plan.port}",))
    settings = OutboxProcessSettings(channels=ChannelsSettings(outbox=outbox, webhooks=webhooks))
    clock = SystemClock()
    services = OutboxServices(
        settings=settings, store=open_store(plan.url), clock=clock, channels=channels_of(settings, clock)
    )
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    if plan.mode == "serial":
        serial = asyncio.create_task(_serial(services), name="serial")
        await asyncio.to_thread(sys.stdin.readline)
        serial.cancel()
        await asyncio.wait([serial])
        return
    sender = Outbox(services, DirectoryHandle(_nobody), actor="outbox-bench", node_id="node")
    await sender.start()
    await asyncio.to_thread(sys.stdin.readline)
    await sender.stop()


async def _nobody(data: bytes) -> bytes:
    """A directory that takes everything and wakes nobody: all deliveries are there before the start."""
    return encode(Done())


async def _serial(services: OutboxServices) -> None:
    """One after the other: claimed, sent, recorded."""
    store, clock = services.store, services.clock
    await store.open()
    await store.register_owner(_OWNER, "node", lease_s=3600)
    channel: Channel = services.channels["webhook"]
    while routes := await store.ready_routes():
        for item in await store.claim_outbox(_OWNER, [(routes[0][0], 1)], now_us=clock.now_us()):
            outcome = await channel.send(
                Delivery(
                    delivery_id=item.delivery_id,
                    attempt=item.attempt,
                    account=item.account,
                    peer=item.peer,
                    body=item.body,
                )
            )
            await store.record_outbox([result_of(item, outcome, now_us=clock.now_us(), max_retry_after_s=60.0)])


if __name__ == "__main__":
    uvloop.run(main(msgspec.json.decode(sys.stdin.readline(), type=SenderPlan)))
