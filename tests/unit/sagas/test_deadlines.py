"""The sagas that expire reservations and holds: a timer that fires too early is set to the deadline again."""

from datetime import UTC, datetime, timedelta

import pytest
from diptych.inventory.v1 import command_service_pb2 as commands
from diptych.inventory.v1 import events_pb2 as events

from process_manager.saga import (
    AbortRequested,
    ActionNotPossible,
    EventReceived,
    RetryRequested,
    Saga,
    StepRejected,
    StepSucceeded,
    Timer,
    TimerFired,
)
from process_manager.sagas.deadlines import DEADLINE, RETRY_INTERVAL, Expiry
from process_manager.sagas.inventory import RESERVATIONS as SAGA

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT = NOON + timedelta(minutes=15)
AHEAD = NOON + timedelta(hours=3)


def begin(saga: Saga[Expiry]) -> Expiry:
    made = events.ReservationMade(reservation_id="r-1")
    made.deadline.FromDatetime(AT)
    reaction = saga.react(saga.initial, EventReceived(made, 1, "inventory.reservation.r-1", NOON))
    assert reaction.timers == [Timer(DEADLINE, AT)]
    return reaction.state


def test_an_expiry_that_comes_too_early_waits_for_the_deadline() -> None:
    reaction = SAGA.react(begin(SAGA), TimerFired(DEADLINE, AHEAD))
    assert [send.request for send in reaction.send] == [
        commands.ExpireReservationRequest(reservation_id="r-1")
    ]
    reaction = SAGA.react(reaction.state, StepRejected("expire-1", "RESERVATION_NOT_EXPIRED", {}, NOON))
    assert reaction.timers == [Timer(DEADLINE, AT)]


def test_an_expiry_that_is_rejected_after_the_deadline_is_tried_again_soon() -> None:
    state = SAGA.react(begin(SAGA), TimerFired(DEADLINE, AT)).state
    reaction = SAGA.react(state, StepRejected("expire-1", "RESERVATION_NOT_EXPIRED", {}, AT))
    assert reaction.timers == [Timer(DEADLINE, AT + RETRY_INTERVAL)]
    state = SAGA.react(reaction.state, TimerFired(DEADLINE, AT + RETRY_INTERVAL)).state
    assert SAGA.describe_status(SAGA.react(state, StepSucceeded("expire-2", None, AT)).state).ended


def test_a_state_of_an_earlier_release_is_tried_again_soon() -> None:
    state = Expiry("r-1", tries=1)
    reaction = SAGA.react(state, StepRejected("expire-1", "RESERVATION_NOT_EXPIRED", {}, NOON))
    assert reaction.timers == [Timer(DEADLINE, NOON + RETRY_INTERVAL)]


def test_an_operator_retries_at_any_time_and_aborts_never() -> None:
    """A retry does no harm: before the deadline, and once it is over, the rules or the saga ignore it."""
    waiting = begin(SAGA)
    expiring = SAGA.react(waiting, TimerFired(DEADLINE, AT)).state
    refused = SAGA.react(expiring, StepRejected("expire-1", "RESERVATION_NOT_EXPIRED", {}, AT)).state
    for state in (waiting, expiring, refused):
        (send,) = SAGA.react(state, RetryRequested(AT)).send
        assert send.step == f"expire-{state.tries + 1}"
        with pytest.raises(ActionNotPossible, match="release or cancel what expires instead"):
            SAGA.react(state, AbortRequested("enough", AT))
    over = SAGA.react(expiring, StepSucceeded("expire-1", None, AT)).state
    assert SAGA.react(over, RetryRequested(AT)).send == ()
    with pytest.raises(ActionNotPossible, match="it is over"):
        SAGA.react(over, AbortRequested("enough", AT))
