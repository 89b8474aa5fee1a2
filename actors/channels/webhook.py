"""The channel of completion webhooks: one signed POST for each attempt, through the guarded client, no redirects.

`Delivery.body` is `WebhookDelivery`; its `event` is sent byte for byte as it was recorded.
"""

from __future__ import annotations

import msgspec
from aiohttp.abc import AbstractResolver

from actors.channels.base import Delivery, Lost, Outcome, Refused, Sent
from actors.channels.retries import DETAIL_BYTES, EGRESS_REFUSED, UNREADABLE
from actors.channels.settings import WebhooksSettings
from actors.channels.signing import signed_headers
from actors.channels.webhook_delivery import WEBHOOK, WebhookDelivery
from actors.clock import Clock
from actors.models.upstream_errors import retry_after_s
from actors.secrets import SecretBox, SecretUnreadable
from actors.tools.egress import EgressFailed, EgressPolicy, EgressRefused, EgressUnreachable, GuardedClient
from actors.tools.lookups import LookupResolver, SharedLookups

_LOOKUPS = 16
_HEADERS = {"Content-Type": "application/json", "User-Agent": "wunder-webhooks"}


class WebhookChannel:
    """Posts events to receivers. An account is a receiver's origin, a peer the session that the event is about."""

    name = WEBHOOK

    def __init__(
        self,
        settings: WebhooksSettings,
        secrets: SecretBox,
        clock: Clock,
        *,
        max_in_flight: int,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._client = GuardedClient(
            EgressPolicy(settings.allow_hosts, public=settings.public),
            timeout_s=settings.timeout_s,
            max_bytes=DETAIL_BYTES,
            max_redirects=0,
            max_connections=max_in_flight,
            resolver=resolver or SharedLookups(LookupResolver(threads=_LOOKUPS, max_waiting=max_in_flight)),
        )

    async def send(self, delivery: Delivery) -> Outcome:
        try:
            given = msgspec.json.decode(delivery.body, type=WebhookDelivery)
            signing = self._signing_secrets(given)
        except msgspec.MsgspecError:
            return Refused(status=None, code=UNREADABLE, detail="the recorded delivery cannot be read")
        except SecretUnreadable as error:
            return Refused(status=None, code=UNREADABLE, detail=error.message)
        if not signing:
            return Refused(status=None, code=UNREADABLE, detail="channels.webhooks.secret is not set any more")
        event, now_us = bytes(given.event), self._clock.now_us()
        headers = _HEADERS | signed_headers(signing, delivery.delivery_id, event, now_us=now_us)
        try:
            answer = await self._client.request("POST", given.url, headers=headers, body=event, follow_redirects=False)
        except EgressRefused as error:
            return Refused(status=None, code=EGRESS_REFUSED, detail=error.message)
        except EgressUnreachable as error:
            return Refused(status=None, code="unreachable", detail=error.message)
        except EgressFailed as error:
            return Lost(detail=error.message)
        detail = answer.body.decode("utf-8", "replace")
        if 200 <= answer.status < 300:
            return Sent(status=answer.status, provider_id=detail)
        return Refused(
            status=answer.status,
            code=f"http_{answer.status}",
            detail=detail,
            retry_after_s=retry_after_s(answer.headers.get("Retry-After"), now_us / 1e6),
        )

    async def close(self) -> None:
        await self._client.close()

    def _signing_secrets(self, given: WebhookDelivery) -> tuple[str, ...]:
        if given.secret is not None:
            return (self._secrets.open(given.secret),)
        return (self._settings.secret, *self._settings.old_secrets) if self._settings.secret else ()
