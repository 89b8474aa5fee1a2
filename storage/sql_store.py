"""`SqlStore`: the whole `AsyncStorageBackend` over one `Database`, composed of its topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from storage.channels import ChannelTopic
from storage.children import ChildTopic
from storage.events import EventTopic
from storage.migrate import Migrated, migrate
from storage.outbox import OutboxTopic
from storage.owners import OwnerTopic
from storage.schedules import ScheduleTopic
from storage.sessions import SessionTopic
from storage.users import UserTopic


class SqlStore(UserTopic, OwnerTopic, SessionTopic, ChannelTopic, ChildTopic, ScheduleTopic, EventTopic, OutboxTopic):
    """The store in SQL; which database it is only its constructor's caller knows."""

    async def open(self) -> None:
        await self._db.open()

    async def migrate(self, *, post: bool = False) -> Migrated:
        return await migrate(self._db, post=post)

    async def ping(self) -> None:
        await self._db.fetchrow("ping")

    def statements(self) -> Mapping[str, int]:
        return self._db.statements()

    @property
    def notifies(self) -> bool:
        return self._db.notifies

    def notify(self, topic: str) -> None:
        self._db.notify(topic)

    async def listen(self, topic: str, on_notified: Callable[[], None]) -> None:
        await self._db.listen(topic, on_notified)

    async def close(self) -> None:
        await self._db.close()
