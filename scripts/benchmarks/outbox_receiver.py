"""The receivers of the scenario `outbox`, in a process of their own; ends with its input."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web

from scripts.benchmarks.outbox_plan import ReceiverPlan, host


async def main(plan: ReceiverPlan) -> None:
    async def take(request: web.Request) -> web.Response:
        await request.read()
        hangs = plan.hang_s and request.host.startswith(f"{host(0)}:")
        await asyncio.sleep(plan.hang_s if hangs else plan.delay_s)
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    for account in range(plan.accounts):
        await web.TCPSite(runner, host(account), plan.port).start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main(msgspec.json.decode(sys.stdin.readline(), type=ReceiverPlan)))
