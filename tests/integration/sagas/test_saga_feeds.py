"""`diptych sagas feeds`: what sagas wait for outside of their instances."""

from dataclasses import replace
from typing import Any

import pytest

from operations import saga_feeds
from process_manager.postgres.store import SagaStore
from process_manager.saga import Saga
from runtime.process.settings import Settings
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN_KEY
from tests.support.harness.saga_run import SagaRun, written
from tests.support.ledger.sagas import COLLECTION

REMINDER: Saga[Any] = replace(COLLECTION, name="ledger.reminder", begins="now")
SAGAS = (COLLECTION, REMINDER, ACCOUNT_WATCH)


async def test_parked_streams_and_beginnings_are_shown(
    store: SagaStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saga_feeds, "load_sagas", lambda _: list(SAGAS))
    run = SagaRun(store, *SAGAS)
    await run.engine.begin(REMINDER)
    await run.deliver(written("d", account=BROKEN_KEY))
    facts = await saga_feeds.read_feeds(Settings(database_url=database_url))
    parked, beginning = map(saga_feeds.describe_fact, facts)
    assert parked.startswith("ledger.account_watch has parked ledger.cheque.d at version 1 since ")
    assert "RuntimeError: the key is broken [" in parked
    assert beginning.startswith("ledger.reminder passes over events recorded before ")
