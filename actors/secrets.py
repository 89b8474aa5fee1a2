"""Secrets at rest: what users entrust to us is kept encrypted, and shown to nobody.

Keys come from `security.secrets_keys`: the first one encrypts, every one decrypts. To change keys, put the new one
first, and take the old one away when nothing sealed with it is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from actors.errors import InvalidRequest, WunderError

SETTING = "security.secrets_keys"
KEY_HINT = "32 random bytes in base64, as `openssl rand -base64 32` makes them"


class SecretUnreadable(WunderError):
    """A sealed secret cannot be opened with the keys that are set."""

    code = "INTERNAL_ERROR"


class SecretBox:
    """Seals and opens secrets (AES-128-CBC with HMAC-SHA256, by `cryptography`'s MultiFernet)."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None

    def __bool__(self) -> bool:
        """Whether there is a key."""
        return self._fernet is not None

    def seal(self, secret: str, *, field: str) -> str:
        """The secret as it may be stored; without a key `InvalidRequest` for `field`, which asked for it."""
        if self._fernet is None:
            raise InvalidRequest(f"{field}: a secret is stored only encrypted, and {SETTING} has no key", field=field)
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The secret; `SecretUnreadable` if no key fits. The error tells nothing of either."""
        if self._fernet is None:
            raise SecretUnreadable(f"a stored secret cannot be read: {SETTING} has no key")
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeError):
            raise SecretUnreadable(f"a stored secret cannot be read: no key of {SETTING} fits") from None


def is_key(text: str) -> bool:
    """Whether a text can be a key of a `SecretBox`."""
    try:
        Fernet(text)
    except ValueError:
        return False
    return True
