"""Errors of sessions, upstream models and tools (see the tree in storage/errors.py)."""

from __future__ import annotations

from storage.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    OwnedElsewhere,
    PayloadTooLarge,
    SessionNotFound,
    StaleEpoch,
    StorageError,
    StorageFull,
    StorageUnavailable,
    WunderError,
)

__all__ = [
    "Conflict",
    "InvalidRequest",
    "NotFound",
    "OwnedElsewhere",
    "PayloadTooLarge",
    "ServiceUnavailable",
    "SessionNotFound",
    "StaleEpoch",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "ToolError",
    "UpstreamError",
    "UpstreamGarbage",
    "UpstreamOverloaded",
    "UpstreamRefused",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "UserBusy",
    "UserQuotaExceeded",
    "WunderError",
    "error_classes",
]


class ServiceUnavailable(WunderError):
    """A part of the service is restarting, draining or full: try again after `retry_after_s`."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retryable = True


class UserBusy(WunderError):
    """The session (or the service) is busy and the busy policy is `reject`; `detail["reason"]` says why."""

    code = "USER_BUSY"
    status = 429
    retryable = True


class UserQuotaExceeded(WunderError):
    """The user's or the session's queue is full."""

    code = "USER_QUOTA_EXCEEDED"
    status = 429
    retryable = True


class UpstreamError(WunderError):
    """The model's server failed. `retryable` says whether asking again can help."""

    code = "LLM_UNAVAILABLE"
    status = 502


class UpstreamUnavailable(UpstreamError):
    """It could not be reached, or the connection broke."""

    retryable = True


class UpstreamTimeout(UpstreamError):
    """Nothing came within `first_token_timeout_s`, or the stream fell silent for `timeout_s`."""

    code = "UPSTREAM_TIMEOUT"
    status = 504
    retryable = True


class UpstreamOverloaded(UpstreamError):
    """429 (our rate) or 5xx/529 (its trouble); `retry_after_s` is what it asked for."""

    retryable = True


class UpstreamRefused(UpstreamError):
    """A 4xx that will be the same next time: a wrong key, an unknown model, a bad request."""


class UpstreamGarbage(UpstreamError):
    """It answered something that is not the protocol: bad JSON, bad UTF-8, an endless line, a truncated stream."""


class ToolError(WunderError):
    """A tool failed; the message is for the model to read."""

    code = "TOOL_ERROR"
    status = 500


def error_classes() -> dict[str, type[WunderError]]:
    """Every error of ours by its name (those whose modules are loaded)."""
    found: dict[str, type[WunderError]] = {}
    pending: list[type[WunderError]] = [WunderError]
    while pending:
        cls = pending.pop()
        found[cls.__name__] = cls
        pending.extend(cls.__subclasses__())
    return found
