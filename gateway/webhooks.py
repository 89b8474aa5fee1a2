"""Webhooks that clients ask for: checked when they are accepted, so that what is recorded can be sent."""

from __future__ import annotations

from actors.channels.signing import SECRET_FORM, is_signing_secret
from actors.errors import InvalidRequest
from actors.messages import Webhook
from actors.secrets import SecretBox
from actors.tools.egress import EgressPolicy, EgressRefused
from gateway.protocol import WebhookBody
from gateway.settings import Settings


class Webhooks:
    """Takes what a client wants to be called with; its secret is sealed here, and read again only to sign."""

    def __init__(self, settings: Settings) -> None:
        webhooks = settings.channels.webhooks
        self._policy = EgressPolicy(webhooks.allow_hosts, public=webhooks.public)
        self._has_secret = bool(webhooks.secret)
        self._box = SecretBox(settings.security.secrets_keys)

    def accepted(self, body: WebhookBody | None) -> Webhook | None:
        """The webhook as it is recorded; `InvalidRequest` names what cannot be."""
        if body is None:
            return None
        try:
            url = str(self._policy.check_url(body.url).with_fragment(None))
        except EgressRefused as error:
            raise InvalidRequest(f"webhook.url: {error.message}", field="webhook.url") from None
        return Webhook(url=url, secret=self._sealed(body.secret))

    def _sealed(self, secret: str | None) -> str | None:
        field = "webhook.secret"
        if secret is None:
            if not self._has_secret:
                what = "is needed, because channels.webhooks.secret is not set"
                raise InvalidRequest(f"{field}: {what}", field=field, hint=f"a secret is {SECRET_FORM}")
            return None
        if not is_signing_secret(secret):
            raise InvalidRequest(f"{field}: expected {SECRET_FORM}, got something else", field=field)
        return self._box.seal(secret, field=field)
