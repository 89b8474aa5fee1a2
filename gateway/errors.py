"""Errors of the edge: credentials, limits, deadlines (see the tree in storage/errors.py)."""

from __future__ import annotations

from actors.errors import WunderError


class AuthRequired(WunderError):
    """No credential, or one that is not (any more) valid."""

    code = "AUTH_REQUIRED"
    status = 401


class PermissionDenied(WunderError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"
    status = 403


class RateLimited(WunderError):
    """Too many requests; `retry_after_s` says when to come back."""

    code = "RATE_LIMITED"
    status = 429
    retryable = True


class RequestTimeout(WunderError):
    """The request did not arrive in time."""

    code = "REQUEST_TIMEOUT"
    status = 408
    retryable = True


class MethodNotAllowed(WunderError):
    """The path exists, but not for this method."""

    code = "INVALID_REQUEST"
    status = 405
