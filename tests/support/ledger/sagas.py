"""The ledger's saga: it cashes written cheques, and gives up after a time."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from process_manager.saga import (
    AbortRequested,
    EventReceived,
    Input,
    Reaction,
    RetryRequested,
    Saga,
    SagaStatus,
    Send,
    StepRejected,
    StepSucceeded,
    Timer,
    TimerFired,
)
from process_manager.subscriptions import Subscription
from tests.support.ledger.events import EVENTS
from tests.support.ledger.stubs import commands

TIMEOUT = timedelta(hours=1)
BROKEN = 13
"""The amount of a cheque for which `react` raises RuntimeError."""


@dataclass(frozen=True)
class Collection:
    cheque_id: str = ""
    state: str = "NEW"
    reason: str = ""
    written_at: datetime | None = None


def react(collection: Collection, input_: Input) -> Reaction[Collection]:
    match input_:
        case EventReceived(event) if event.DESCRIPTOR.name == "ChequeWritten":
            if event.amount == BROKEN:
                raise RuntimeError("the saga's code is broken")
            collection = Collection(event.cheque_id, "CASHING", written_at=input_.at)
            return Reaction(collection, [_cash(event.cheque_id)], [Timer("timeout", input_.at + TIMEOUT)])
        case StepSucceeded(step="cash"):
            return Reaction(replace(collection, state="CASHED"), timers=[Timer("timeout", None)])
        case StepRejected(step="cash", reason=reason) if collection.state == "CASHING":
            return Reaction(replace(collection, state="REFUSED", reason=reason))
        case RetryRequested() if collection.state == "REFUSED":
            return Reaction(replace(collection, state="CASHING", reason=""), [_cash(collection.cheque_id)])
        case TimerFired(timer="timeout"):
            return Reaction(replace(collection, state="GIVEN_UP"))
        case AbortRequested(reason=reason):
            return Reaction(
                replace(collection, state="GIVEN_UP", reason=reason), timers=[Timer("timeout", None)]
            )
    return Reaction(collection)


def _cash(cheque_id: str) -> Send:
    return Send("cash", commands.CashChequeRequest(cheque_id=cheque_id))


def describe_status(collection: Collection) -> SagaStatus:
    blocked_reason = collection.reason if collection.state == "REFUSED" else ""
    return SagaStatus(
        collection.state, collection.state in ("CASHED", "GIVEN_UP"), blocked_reason=blocked_reason
    )


COLLECTION: Saga[Any] = Saga(
    name="ledger.collection",
    subscribes_to=(Subscription("ledger.cheque", EVENTS),),
    begins="first_event",
    requests=(commands.CashChequeRequest,),
    initial=Collection(),
    react=react,
    describe_status=describe_status,
)
SAGAS = (COLLECTION,)
