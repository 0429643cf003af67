"""Deadlines follow from a feed's events: whatever the batches, a row exists while the next version is 2."""

import random
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from contracts.envelope import RecordedEvent
from process_manager.deadlines.changes import DeadlineChanges, DeadlineSaga, Key, find_changes
from process_manager.saga import Saga
from process_manager.sagas.banking import HOLDS
from process_manager.sagas.inventory import RESERVATIONS
from process_manager.subscriptions import Subscription
from tests.support.builders.reservations import ended, made
from tests.support.ledger.events import EVENTS as LEDGER_EVENTS

assert RESERVATIONS.deadline is not None
SAGA = DeadlineSaga(RESERVATIONS, RESERVATIONS.deadline)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def name(id_: str) -> Key:
    return RESERVATIONS.name, id_


def test_the_first_event_sets_a_deadline() -> None:
    (begun,) = find_changes(SAGA, [made("r", NOON)]).begun
    assert (begun.saga, begun.id, begun.due_at, begun.correlation_id) == (*name("r"), NOON, "c-1")


def test_the_second_event_ends_it_and_later_ones_find_none() -> None:
    changes = find_changes(
        SAGA, [ended("r", 2), ended("s", 3), ended("s", 4), made("t", NOON), ended("t", 2)]
    )
    assert changes == DeadlineChanges(ended=[name("r")], over=[name("s")], passed=[name("t")])


@pytest.mark.parametrize(
    "events",
    [
        [made("r", NOON), ended("r", 3)],
        [ended("r", 1)],
        [made("r", NOON, 2)],
        [msgspec.structs.replace(made("r", NOON), data=b"\xff")],
        [msgspec.structs.replace(ended("r", 2), type="diptych.inventory.v9.ReservationExtended")],
    ],
    ids=["a gap", "another first event", "a second deadline", "bytes that are none", "an unknown type"],
)
def test_events_that_cannot_be_judged_go_the_ordinary_way(events: Sequence[RecordedEvent]) -> None:
    assert find_changes(SAGA, events) == DeadlineChanges(unclear=[name("r")])


@pytest.mark.parametrize(
    "due_at",
    [
        NOON.replace(tzinfo=None),
        NOON.date(),
        "noon",
        None,
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    ],
    ids=["no time zone", "a date", "a text", "none", "too late"],
)
def test_a_deadline_that_is_no_time_goes_the_ordinary_way(due_at: Any) -> None:
    saga = DeadlineSaga(RESERVATIONS, replace(SAGA.deadline, find=lambda _: due_at))
    assert find_changes(saga, [made("r", NOON)]) == DeadlineChanges(unclear=[name("r")])


@pytest.mark.parametrize("_round", range(20))
def test_batches_and_redelivery_do_not_matter(_round: int) -> None:
    chance = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")
    lengths = {f"r-{number}": chance.randint(1, 4) for number in range(30)}
    events: list[RecordedEvent] = []
    versions = dict.fromkeys(lengths, 0)
    while open_ids := [id_ for id_, length in lengths.items() if versions[id_] < length]:
        versions[id_ := chance.choice(open_ids)] += 1
        version = versions[id_]
        events.append(made(id_, NOON) if version == 1 else ended(id_, version))
    rows: set[Key] = set()
    for _ in range(3):  # from the beginning each time, as after a new epoch
        at = 0
        while at < len(events):
            batch, at = events[at : at + (size := chance.randint(1, 40))], at + size
            apply(rows, find_changes(SAGA, batch))
        assert rows == {name(id_) for id_, length in lengths.items() if length == 1}


def apply(rows: set[Key], changes: DeadlineChanges) -> None:
    assert not changes.unclear
    assert rows >= set(changes.ended)
    assert not rows & set(changes.over)
    rows -= {*changes.ended, *changes.passed}
    rows |= {(each.saga, each.id) for each in changes.begun}


@pytest.mark.parametrize(
    "changes",
    [
        {"begins": "now"},
        {"subscribes_to": (*RESERVATIONS.subscribes_to, *HOLDS.subscribes_to)},
        {"subscribes_to": (Subscription("ledger.cheque", LEDGER_EVENTS),)},
    ],
    ids=["begins now", "two subscriptions", "an event of another context"],
)
def test_a_saga_that_excludes_a_deadline_is_refused(changes: dict[str, Any]) -> None:
    saga: Saga[Any] = RESERVATIONS
    with pytest.raises(ValueError, match=r"inventory\.reservation_deadline|ReservationMade|without a key"):
        replace(saga, **changes)


def test_a_deadline_begins_an_open_saga_without_a_limit() -> None:
    for saga in (RESERVATIONS, HOLDS):
        assert saga.deadline is not None
        status = saga.describe_status(saga.deadline.begin("r", NOON))
        assert (status.ended, status.max_duration, status.blocked_reason) == (False, None, "")
        assert saga.deadline.begin("r", NOON + timedelta(seconds=1)) != saga.deadline.begin("r", NOON)
