"""What a model's server says when it fails, as our errors: short, without control characters, never with a key."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable
from typing import Any

import msgspec

from actors.errors import UpstreamError, UpstreamOverloaded, UpstreamRefused, UpstreamUnavailable
from actors.models.wire import error_decoder

MAX_MESSAGE_CHARS = 200
MAX_RETRY_AFTER_S = 86_400.0

_SECRETS = re.compile(r"(?i)\b(sk|pk|key|api|gsk|xai|hf)[-_][\w*.\-]{6,}|bearer\s+\S+")
_OVERLOADED = ("overloaded", "rate_limit", "too_many", "server_error", "internal", "unavailable", "capacity")
_REFUSED = (
    "invalid", "authentication", "permission", "not_found", "quota", "billing", "context_length", "content_filter",
    "unsupported",
)  # fmt: skip

Redactor = Callable[[str], str]


def redactor(api_key: str) -> Redactor:
    """Make a server's words fit to show: the key and what looks like one is cut out, and so is length."""

    def redact(text: str) -> str:
        if len(api_key) >= 4:
            text = text[: 16 * MAX_MESSAGE_CHARS].replace(api_key, "[key]")
        text = _SECRETS.sub("[key]", text[: 16 * MAX_MESSAGE_CHARS])
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "…"

    return redact


def status_error(status: int, body: bytes, retry_after: str | None, redact: Redactor, now_s: float) -> UpstreamError:
    """The error for a status that is not 200."""
    wait_s = retry_after_s(retry_after, now_s)
    said = _quoted(_body_message(body), redact)
    if status == 429:
        if _is_quota(body):
            return UpstreamRefused(f"The quota at the model's server is used up (429){said}.")
        return UpstreamOverloaded(
            f"The model's server limits our rate (429){said}.",
            retry_after_s=wait_s,
            detail={"status": status},
        )
    if status >= 500 or status == 408:
        return UpstreamOverloaded(
            f"The model's server is in trouble ({status}){said}.",
            retry_after_s=wait_s,
            detail={"status": status},
        )
    hint = None
    if status in (401, 403):
        hint, said = "Check api_key of this model in config/wunder.yaml (llm.models).", ""
    elif status == 404:
        hint = "Check base_url and model of this model in config/wunder.yaml (llm.models)."
    return UpstreamRefused(
        f"The model's server refused the request ({status}){said}.", hint=hint, detail={"status": status}
    )


def stream_error(error: Any, redact: Redactor) -> UpstreamError:
    """The error for an error object inside a 200 answer."""
    kind = _kind(error)
    said = _quoted(_message(error), redact)
    if any(word in kind for word in _REFUSED) or _number(error) in (400, 401, 403, 404, 413, 422):
        return UpstreamRefused(f"The model's server refused the request{said}.")
    if any(word in kind for word in _OVERLOADED) or _number(error) >= 429:
        return UpstreamOverloaded(f"The model's server gave up while answering{said}.")
    return UpstreamUnavailable(f"The model's server reported an error{said}.")


def body_error(body: bytes, redact: Redactor) -> UpstreamError | None:
    """The error that a JSON body with status 200 speaks of, if it does."""
    decoded = _decode(body)
    return stream_error(decoded.error, redact) if decoded is not None and decoded.error is not None else None


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds from a Retry-After header: a number, or a date compared with `now_s`."""
    if not header:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(header).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    if not wait_s >= 0:
        return None
    return min(wait_s, MAX_RETRY_AFTER_S)


def _decode(body: bytes) -> Any:
    try:
        return error_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _body_message(body: bytes) -> str:
    decoded = _decode(body)
    if decoded is None:
        return ""
    return _message(decoded.error) or _message(decoded.message) or _message(decoded.detail)


def _is_quota(body: bytes) -> bool:
    decoded = _decode(body)
    return decoded is not None and "quota" in _kind(decoded.error)


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    return error if isinstance(error, str) else ""


def _kind(error: Any) -> str:
    if not isinstance(error, dict):
        return ""
    return f"{error.get('type') or ''} {error.get('code') or ''}".lower()


def _number(error: Any) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) == 3:
        return int(code)
    return code if isinstance(code, int) else 0


def _quoted(message: str, redact: Redactor) -> str:
    return f": {redact(message).rstrip('.')}" if message else ""
