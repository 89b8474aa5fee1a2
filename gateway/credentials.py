"""Credentials as they travel: where a request carries one, how tokens and tickets are made and hashed."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Literal

import msgspec
from aiohttp import web

from gateway.errors import AuthRequired

TOKEN_PREFIX = "wund_"  # noqa: S105 - not a secret
TICKET_PREFIX = "wtkt_"
SUBPROTOCOL = "wunder"
_SUBPROTOCOL_TOKEN = "wunder-auth."  # noqa: S105 - not a secret
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")

CredentialKind = Literal["bearer", "api_key", "token", "ticket"]


class Credential(msgspec.Struct, frozen=True):
    """What a request presents: `bearer` may be a token or the API key."""

    kind: CredentialKind
    secret: str

    def __repr__(self) -> str:
        return f"Credential({self.kind})"


def new_secret(prefix: str) -> str:
    """A prefix and 256 random bits in base64url."""
    return prefix + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """SHA-256 in hex: enough for 256 random bits, and all that is stored."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def is_well_formed(secret: str, prefix: str) -> bool:
    """Whether this can be one of ours at all; anything else costs no look-up."""
    return secret.startswith(prefix) and _SECRET.fullmatch(secret, len(prefix)) is not None


def find_credential(request: web.Request, *, allow_query_token: bool) -> Credential:
    """The first in this order: headers, WebSocket subprotocol, ticket, query token (if allowed)."""
    found = _in_headers(request) or _in_subprotocol(request) or _in_query(request, allow_query_token)
    if found is None:
        raise AuthRequired("sign in first", hint="send `Authorization: Bearer <token>`")
    return found


def _in_headers(request: web.Request) -> Credential | None:
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise AuthRequired("the Authorization header must be `Bearer <token>`")
        return Credential("bearer", secret.strip())
    api_key = request.headers.get("X-API-Key")
    return None if api_key is None else Credential("api_key", api_key.strip())


def _in_subprotocol(request: web.Request) -> Credential | None:
    for header in request.headers.getall("Sec-WebSocket-Protocol", []):
        for protocol in header.split(","):
            name = protocol.strip()
            if name.startswith(_SUBPROTOCOL_TOKEN):
                return Credential("token", name.removeprefix(_SUBPROTOCOL_TOKEN))
    return None


def _in_query(request: web.Request, allow_query_token: bool) -> Credential | None:
    """Tickets open streams: they are taken on GET only."""
    if request.method == "GET" and "ticket" in request.query:
        return Credential("ticket", request.query["ticket"])
    for name in ("token", "access_token"):
        if name in request.query:
            if not allow_query_token:
                raise AuthRequired(
                    "a token in the query string ends up in logs and is not accepted",
                    hint="use the Authorization header, or a ticket from POST /wunder/auth/ticket",
                )
            return Credential("token", request.query[name])
    return None
