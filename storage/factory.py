"""`create_store`: the one place that chooses a database, by the URL in the settings."""

from __future__ import annotations

from urllib.parse import unquote

from storage.database import Database, StorageObserver
from storage.errors import InvalidRequest
from storage.merged_queue_writer import MergedQueueWriter
from storage.merged_turn_writer import MergedTurnWriter
from storage.outbox_writer import MergedOutboxClaimer, SteppedOutboxClaimer
from storage.postgres import PostgresDatabase
from storage.queue_writer import SteppedQueueWriter
from storage.settings import StorageSettings
from storage.sql_store import SqlStore
from storage.sqlite import MEMORY, SqliteDatabase
from storage.store import AsyncStorageBackend
from storage.turn_writer import SteppedTurnWriter

_EXPECTED = "postgresql://user@host/database, sqlite:///relative/path.db, sqlite:////absolute/path.db"


def create_store(settings: StorageSettings, observer: StorageObserver | None = None) -> AsyncStorageBackend:
    """A store that is not open yet; `InvalidRequest` (field "storage.url") for a URL of another kind."""
    database = create_database(settings, observer)
    if database.dialect == "postgres":
        turns, queue = MergedTurnWriter(database), MergedQueueWriter(database)
        return SqlStore(database, turns, queue, MergedOutboxClaimer(database))
    return SqlStore(database, SteppedTurnWriter(database), SteppedQueueWriter(database), SteppedOutboxClaimer(database))


def create_database(settings: StorageSettings, observer: StorageObserver | None = None) -> Database:
    """The database that the settings' URL names."""
    scheme, separator, rest = settings.url.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        return PostgresDatabase(settings, observer)
    if separator and scheme == "sqlite":
        return SqliteDatabase(_sqlite_path(rest), settings, observer)
    shown = scheme if separator else "no scheme"
    raise InvalidRequest(f"expected {_EXPECTED}; got {shown}", field="storage.url")


def _sqlite_path(rest: str) -> str:
    if rest in (MEMORY, f"/{MEMORY}"):
        return MEMORY
    path = unquote(rest.removeprefix("/"))
    if not rest.startswith("/") or not path:
        raise InvalidRequest(f"expected {_EXPECTED}; got a sqlite URL without a path", field="storage.url")
    return path
