"""The root of the error tree, and the errors of storage.

WunderError
├── InvalidRequest, NotFound, Conflict, PayloadTooLarge ...   what a caller did
├── StorageError
│   ├── StorageUnavailable      the database did not answer in time: try again
│   ├── StorageFull             no room to write: reads go on
│   ├── StaleEpoch              a fenced write by a session's former owner
│   └── OwnedElsewhere          another owner with a live lease has the session
├── (actors/errors.py)          upstream, tools, sessions
└── (gateway/errors.py)         credentials, limits
"""

from __future__ import annotations

from typing import Any, ClassVar


class WunderError(Exception):
    """An error with a stable wire code, an HTTP status, and whether trying again can help."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        field: str | None = None,
        retry_after_s: float | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field
        self.retry_after_s = retry_after_s
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            "hint": self.hint,
            "field": self.field,
            "retry_after_s": self.retry_after_s,
            "detail": self.detail,
        }
        return _rebuild, (type(self), self.message, options)


def _rebuild(cls: type[WunderError], message: str, options: dict[str, Any]) -> WunderError:
    return cls(message, **options)


class InvalidRequest(WunderError):
    """The request is malformed; `field` names the part, the message says what was expected and what came."""

    code = "INVALID_REQUEST"
    status = 400


class NotFound(WunderError):
    """There is no such thing, or it is not the caller's to see."""

    code = "NOT_FOUND"
    status = 404


class SessionNotFound(NotFound):
    """There is no such session for this caller."""

    code = "SESSION_NOT_FOUND"


class Conflict(WunderError):
    """The request contradicts what exists (a taken username, a live request id)."""

    code = "CONFLICT"
    status = 409


class PayloadTooLarge(WunderError):
    """The body or frame is larger than the limit that the message names."""

    code = "PAYLOAD_TOO_LARGE"
    status = 413


class StorageError(WunderError):
    """Anything the database answered that is not one of the cases below."""

    code = "INTERNAL_ERROR"
    status = 500


class StorageUnavailable(StorageError):
    """The database is unreachable or did not answer within its deadline; whether a write was made is unknown."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retryable = True


class StorageFull(StorageError):
    """The database has no room for the write; reads go on."""

    code = "SERVICE_UNAVAILABLE"
    status = 507
    retryable = True


class StaleEpoch(StorageError):
    """The writer is no longer the session's owner; nothing was written."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retryable = True


class OwnedElsewhere(StorageError):
    """The session has another owner whose lease is live; `detail["owner_id"]` names it."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retryable = True
