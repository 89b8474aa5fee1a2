"""Negative control of the fence: without it a former owner's completion is accepted beside the new owner's."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import StaleEpoch
from storage.factory import create_store
from storage.records import Fence, OwnerId
from storage.settings import StorageSettings
from tests.conformance.store import make


async def unfenced(*_: Any) -> None:
    return


@pytest.mark.parametrize("defended", [True, False])
async def test_who_completes_a_turn_that_two_owners_ran(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not defended:
        monkeypatch.setattr("storage.turn_writer.check_fence", unfenced)
    store = create_store(StorageSettings(url="sqlite:///:memory:"))
    await store.open()
    try:
        await store.migrate()
        former = await make.fence(store)
        await make.accept(store, former, make.task("t1"))
        await store.expire_owner(make.OWNER)
        await store.register_owner(OwnerId("new"), "node", lease_s=60)
        opened = await store.open_session(make.SESSION, OwnerId("new"), seq_block=64, now_us=9)
        accepted = 0
        for fence, attempt in ((former, 1), (Fence(make.SESSION, opened.session.epoch), 1)):
            try:
                accepted += await make.finish(store, fence, attempt=attempt, answer=f"of epoch {fence.epoch}")
            except StaleEpoch:
                assert fence == former
        task = await store.get_task(make.task("t1").turn_id)
        assert task is not None
        of_the_former = task.answer == f"of epoch {former.epoch}"
        assert (accepted, of_the_former) == ((1, False) if defended else (2, True)), "the control must be red"
    finally:
        await store.close()
