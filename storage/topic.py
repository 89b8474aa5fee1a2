"""What the topics of the store share."""

from __future__ import annotations

from storage.database import Database
from storage.outbox_writer import OutboxClaimer
from storage.queue_writer import QueueWriter
from storage.turn_writer import TurnWriter


class StoreTopic:
    """A part of the store over one database."""

    def __init__(
        self, database: Database, turn_writer: TurnWriter, queue_writer: QueueWriter, claimer: OutboxClaimer
    ) -> None:
        self._db = database
        self._turns = turn_writer
        self._queue = queue_writer
        self._claimer = claimer
