"""Password hashing in a bounded pool of its own: a flood of sign-ins cannot take the event loop or memory.

    sign-in -> [queue: auth.hash_queue] -> auth.hash_workers threads (argon2id, GIL released) -> answer
                     full: 503 with Retry-After

Memory is at most `hash_workers * hash_memory_kib`.
"""

from __future__ import annotations

import asyncio
import base64
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import argon2
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError

from actors.errors import ServiceUnavailable
from actors.logs import log
from gateway.settings import AuthSettings

T = TypeVar("T")

_EXPECTED_HASH_S = 0.1
_NO_MEMORY = "Memory allocation"
_SALT_BYTES = 16
_HASH_BYTES = 32


class PasswordHasher:
    """argon2id with the parameters of the settings. An unknown user costs exactly one verification too."""

    def __init__(self, settings: AuthSettings) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=settings.hash_time_cost,
            memory_cost=settings.hash_memory_kib,
            parallelism=settings.hash_parallelism,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )
        self._workers = settings.hash_workers
        self._queue = settings.hash_queue
        self._pool = ThreadPoolExecutor(settings.hash_workers, thread_name_prefix="password")
        self._lock = Lock()
        self._pending = 0
        self._busy = 0
        self._dummy = _hash_of_nothing(settings)

    @property
    def busy(self) -> int:
        """Threads that hash at this moment."""
        return self._busy

    @property
    def queued(self) -> int:
        """Sign-ins that wait for a thread."""
        return max(0, self._pending - self._busy)

    async def hash(self, password: str) -> str:
        """The PHC string to store. `ServiceUnavailable` when the queue is full."""
        return await self._submit(lambda: self._argon2.hash(_normalized(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right; with None (no such user) the same work for the answer False."""
        known = password_hash is not None
        return await self._submit(lambda: self._verify(password_hash or self._dummy, password)) and known

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._argon2.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Drop what is queued; running hashes end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(password_hash, _normalized(password))
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError) as error:
            if str(error).startswith(_NO_MEMORY):
                raise
            log.error("password_hash_unreadable")
            return False

    async def _submit(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._pending >= self._workers + self._queue:
                raise self._full()
            self._pending += 1
        try:
            future = self._pool.submit(self._run, work)
        except RuntimeError:
            self._forget(None)
            raise ServiceUnavailable("the service is stopping") from None
        future.add_done_callback(self._forget)
        try:
            return await asyncio.wrap_future(future)
        except (HashingError, VerificationError):  # the only one that gets here is about memory
            raise ServiceUnavailable("there is no memory to check a password; try again") from None

    def _run(self, work: Callable[[], T]) -> T:
        with self._lock:
            self._busy += 1
        try:
            return work()
        finally:
            with self._lock:
                self._busy -= 1

    def _forget(self, _: Future[T] | None) -> None:
        with self._lock:
            self._pending -= 1

    def _full(self) -> ServiceUnavailable:
        wait_s = self._pending * _EXPECTED_HASH_S / self._workers
        return ServiceUnavailable("too many sign-ins at once; try again", retry_after_s=wait_s)


def _normalized(password: str) -> bytes:
    """The same bytes however a keyboard composed the characters."""
    return unicodedata.normalize("NFKC", password).encode()


def _hash_of_nothing(settings: AuthSettings) -> str:
    """A well-formed hash with today's parameters that no password matches."""
    salt = base64.b64encode(bytes(_SALT_BYTES)).decode().rstrip("=")
    digest = base64.b64encode(bytes(_HASH_BYTES)).decode().rstrip("=")
    cost = f"m={settings.hash_memory_kib},t={settings.hash_time_cost},p={settings.hash_parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"
